"""The networks of the benchmarks in plain torch.nn, layer for layer what the YAML files describe.

They are written as their authors write them: activations in place, sums out of place. Parameters are
made in the order of their first use, which is also graphnet's.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


def paper() -> nn.Module:
    """The paper's network: (N, 3, H, W) -> the same; H and W multiples of 4."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 2, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 256, 2, 2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(256, 64, 2, 2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(64, 3, 2, 2),
        nn.Sigmoid(),
    )


class Centred(nn.Module):
    """The body of images less the mean of each channel."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x - x.mean((2, 3), keepdim=True))
        return y


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def dncnn() -> nn.Module:
    """A DnCNN of 8 layers with 48 channels: (N, 3, H, W) -> the same."""
    sizes = [3, *[48] * 7]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
    return Residual(nn.Sequential(*layers, nn.Conv2d(48, 3, 3, padding=1)))


def dncnn17() -> nn.Module:
    """DnCNN as published, 17 convolutions with 64 channels, and norms: (N, 3, H, W) -> the same."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(15):
        layers += [
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        ]
    return Residual(nn.Sequential(*layers, nn.Conv2d(64, 3, 3, padding=1)))


def chain() -> nn.Module:
    """100 convolutions 1x1 with 4 channels, each with a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(100):
        layers += [nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def residual_block(channels: int) -> Residual:
    """x + conv(relu(conv(x)))."""
    return Residual(
        nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )
    )


class UNet(nn.Module):
    """The residual U-Net: (N, inputs, H, W) -> (N, outputs, H, W); H and W multiples of 8.

    `blocks` residual blocks on each side of every level, `finest` of the first.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 128),
        blocks: int = 2,
        finest: int = 2,
        inputs: int = 3,
        outputs: int = 3,
    ) -> None:
        super().__init__()
        levels = list(zip(pairwise(channels), (finest, *[blocks] * len(channels)), strict=False))
        self.head = nn.Conv2d(inputs, channels[0], 3, padding=1, bias=False)
        self.downs = nn.ModuleList(
            nn.Sequential(
                *(residual_block(fine) for _ in range(count)),
                nn.Conv2d(fine, coarse, 2, 2, bias=False),
            )
            for (fine, coarse), count in levels
        )
        self.body = nn.Sequential(*(residual_block(channels[-1]) for _ in range(blocks)))
        self.ups = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(coarse, fine, 2, 2, bias=False),
                *(residual_block(fine) for _ in range(count)),
            )
            for (fine, coarse), count in reversed(levels)
        )
        self.tail = nn.Conv2d(channels[0], outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.head(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = self.body(skips[-1])
        for up in self.ups:
            x = up(x + skips.pop())
        y: Tensor = self.tail(x + skips.pop())
        return y

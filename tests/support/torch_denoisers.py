"""The graphs of examples/denoisers in plain torch.nn, parameters made in the order of their first use."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.torch_networks import Residual


def conv(before: int, after: int, size: int, **fields: int | bool) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, padding=size // 2, **fields)  # type: ignore[arg-type]


class ChannelNorm(nn.Module):
    """The norm of NAFNet, over the channels of each pixel, and of Restormer, without mean and bias."""

    def __init__(self, channels: int, *, eps: float, plain: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if plain else None
        self.eps, self.plain = eps, plain

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        if self.plain:
            y = F.layer_norm(last, (x.shape[1],), self.weight, self.bias, self.eps)
        else:
            y = last / (last.var(-1, correction=0, keepdim=True) + self.eps).sqrt() * self.weight
        return y.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Channel attention of NAFNet: x * conv(mean(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = x * self.weigh(F.adaptive_avg_pool2d(x, 1))
        return weighed


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, 1)
        return one * other


class Scale(nn.Module):
    """x * weight, one for each channel or head."""

    def __init__(self, count: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((count, 1, 1), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def naf(c: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(
            nn.Sequential(
                ChannelNorm(c, eps=1e-6, plain=True),
                conv(c, 2 * c, 1),
                conv(2 * c, 2 * c, 3, groups=2 * c),
                Gate(),
                Attention(c),
                conv(c, c, 1),
                Scale(c, 0.0),
            )
        ),
        Residual(
            nn.Sequential(
                ChannelNorm(c, eps=1e-6, plain=True),
                conv(c, 2 * c, 1),
                Gate(),
                conv(c, c, 1),
                Scale(c, 0.0),
            )
        ),
    )


class NAFNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths, blocks = (16, 32, 64, 128), (1, 1, 2)
        self.head = conv(3, 16, 3)
        self.encoders = nn.ModuleList()
        for (fine, coarse), count in zip(pairwise(widths), blocks, strict=True):
            self.encoders.append(nn.Sequential(*(naf(fine) for _ in range(count))))
            self.encoders.append(nn.Conv2d(fine, coarse, 2, 2))
        self.middle = nn.Sequential(naf(128), naf(128))
        self.decoders = nn.ModuleList()
        for coarse, count in ((128, 2), (64, 1), (32, 1)):
            larger = nn.Sequential(conv(coarse, 2 * coarse, 1, bias=False), nn.PixelShuffle(2))
            self.decoders.append(larger)
            self.decoders.append(nn.Sequential(*(naf(coarse // 2) for _ in range(count))))
        self.tail = conv(16, 3, 3)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = self.head(image), []
        for encode, down in zip(self.encoders[::2], self.encoders[1::2], strict=True):
            skips.append(encode(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, decode in zip(self.decoders[::2], self.decoders[1::2], strict=True):
            x = decode(up(x) + skips.pop())
        y: Tensor = image + self.tail(x)
        return y


class Transposed(nn.Module):
    """MDTA: attention between the channels of each head."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Sequential(
            conv(channels, 3 * channels, 1, bias=False),
            conv(3 * channels, 3 * channels, 3, bias=False, groups=3 * channels),
        )
        self.heads, self.temperature = heads, Scale(heads, 1.0)
        self.out = conv(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        shape = (n, self.heads, c // self.heads, h * w)
        q, k, v = (part.reshape(shape) for part in self.qkv(x).chunk(3, 1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        mixed = self.temperature(scores).softmax(-1) @ v
        y: Tensor = self.out(mixed.reshape(n, c, h, w))
        return y


class GatedGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, 1)
        return F.gelu(one) * other


def transformer(c: int, heads: int, hidden: int) -> nn.Sequential:
    norms = [ChannelNorm(c, eps=1e-5, plain=False) for _ in range(2)]
    wide = conv(hidden, hidden, 3, bias=False, groups=hidden)
    feed = (conv(c, hidden, 1, bias=False), wide, GatedGELU(), conv(hidden // 2, c, 1, bias=False))
    return nn.Sequential(
        Residual(nn.Sequential(norms[0], Transposed(c, heads))),
        Residual(nn.Sequential(norms[1], *feed)),
    )


class Restormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shapes = ((16, 1, 80), (32, 2, 168), (64, 4, 340))
        self.head = conv(3, 16, 3, bias=False)
        self.encoders = nn.ModuleList()
        for c, heads, hidden in shapes:
            self.encoders.append(transformer(c, heads, hidden))
            down = nn.Sequential(conv(c, c // 2, 3, bias=False), nn.PixelUnshuffle(2))
            self.encoders.append(down)
        self.middle = transformer(128, 8, 680)
        self.decoders = nn.ModuleList()
        for c, mix, heads, hidden in ((64, 64, 4, 340), (32, 32, 2, 168), (32, 0, 1, 168)):
            larger = conv(2 * c if mix else c, 4 * c if mix else 2 * c, 3, bias=False)
            self.decoders.append(nn.Sequential(larger, nn.PixelShuffle(2)))
            self.decoders.append(conv(2 * c, c, 1, bias=False) if mix else nn.Identity())
            self.decoders.append(transformer(c, heads, hidden))
        self.tail = conv(32, 3, 3, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = self.head(image), []
        for encode, down in zip(self.encoders[::2], self.encoders[1::2], strict=True):
            skips.append(encode(x))
            x = down(skips[-1])
        x = self.middle(x)
        for up, mix, decode in zip(*(self.decoders[i::3] for i in range(3)), strict=True):
            x = decode(mix(torch.cat((up(x), skips.pop()), 1)))
        y: Tensor = image + self.tail(x)
        return y

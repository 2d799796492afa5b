"""Structural similarity as a loss: SSIM, and multi-scale SSIM.

Both compare local statistics of two images x and y: the means m, the variances s^2 and the covariance s_xy
under a Gaussian window, at each position where the window lies inside the image. With c1 = (0.01 L)^2,
c2 = (0.03 L)^2 and L the range of the values (Wang et al. 2004, eqs. 6, 9, 12, 13),

    luminance = (2 m_x m_y + c1) / (m_x^2 + m_y^2 + c1)
    structure = (2 s_xy + c2) / (s_x^2 + s_y^2 + c2)          contrast and structure in one factor

The window is separable: a weighted mean along the height, then one along the width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Loss, Specs

_K1, _K2 = 0.01, 0.03
_FLOOR = 1e-6  # the least factor of the product: at 0 the derivative of its power is infinite
Weights = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class SimilarityLoss(Loss):
    """The base of both losses: their fields and inputs.

    prediction, target: (N, C, H, W), float, the same shape; each channel is compared separately; loss: 0-dim.
    The target gets no gradient. `window_size` and `sigma` are in pixels, `data_range` is L.

    Raises:
        GraphError: the shapes differ or are not N C H W, or the images are too small for the window.
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    window_size: PositiveInt = 11
    sigma: PositiveFloat = 1.5
    data_range: PositiveFloat = 1.0

    @property
    def bell(self) -> tuple[float, ...]:
        """The weights of the Gaussian window along one axis; their sum is 1."""
        middle = (self.window_size - 1) / 2
        values = [
            math.exp(-0.5 * ((i - middle) / self.sigma) ** 2) for i in range(self.window_size)
        ]
        return tuple(value / sum(values) for value in values)

    def compare(self, x: Tensor, y: Tensor) -> Statistics:
        """Compute the local statistics of two images."""
        c1, c2 = (self.data_range * _K1) ** 2, (self.data_range * _K2) ** 2
        means = blur(torch.stack((x, y, x * x, y * y, x * y)), self.bell)
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = means
        luminance_below = mean_x.square() + mean_y.square() + c1
        structure_below = mean_xx - mean_x.square() + mean_yy - mean_y.square() + c2
        return Statistics(
            mean_x,
            mean_y,
            (2.0 * mean_x * mean_y + c1) / luminance_below,
            (2.0 * (mean_xy - mean_x * mean_y) + c2) / structure_below,
            luminance_below,
            structure_below,
        )

    def pull_back(self, slopes: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of x, given the derivatives from `Statistics.slopes`."""
        by_mean, by_square, by_product = spread(slopes, self.bell).unbind()
        return by_mean + 2.0 * x * by_square + y * by_product

    def check(self, prediction: Tensor, target: Tensor, *, scales: int = 1) -> None:
        """Raise GraphError unless both have the same shape N C H W, large enough for the window."""
        if prediction.ndim != 4 or prediction.shape != target.shape:
            raise GraphError(
                f"expected two images N x C x H x W of one shape, got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}"
            )
        least = self.window_size * 2 ** (scales - 1)
        height, width = prediction.shape[2:]
        if min(height, width) < least:
            reason = "the smallest scale" if scales > 1 else "the image"
            raise GraphError(
                f"expected images of at least {least} x {least} pixels, so that {reason} holds the "
                f"window of {self.window_size}, got {height} x {width}. Give larger images, or a "
                f"smaller window_size{' or fewer weights' if scales > 1 else ''}."
            )


@dataclass(frozen=True, slots=True)
class Statistics:
    """Local statistics of x and y, each (N, C, H', W').

    Args:
        mean_x: the local means of x.
        mean_y: the local means of y.
        luminance: the luminance of the module's equations.
        structure: the structure of the module's equations.
        luminance_below: the denominator of luminance.
        structure_below: the denominator of structure.
    """

    mean_x: Tensor
    mean_y: Tensor
    luminance: Tensor
    structure: Tensor
    luminance_below: Tensor
    structure_below: Tensor

    def slopes(self, by_luminance: Tensor | float, by_structure: Tensor | float) -> Tensor:
        """Return the derivatives by the local means of x, x^2 and x y.

        s_x^2 and s_xy are the means of x^2 and x y minus products of means, so structure also depends on the
        mean of x.

        Args:
            by_luminance: the derivative by luminance.
            by_structure: the derivative by structure.

        Returns:
            (3, N, C, H', W').
        """
        lift = 2.0 * (self.mean_y - self.mean_x * self.luminance) / self.luminance_below
        drop = 2.0 * (self.mean_y - self.mean_x * self.structure) / self.structure_below
        by_product = 2.0 * by_structure / self.structure_below
        by_square = -0.5 * self.structure * by_product
        return torch.stack((by_luminance * lift - by_structure * drop, by_square, by_product))


class SSIM(SimilarityLoss):
    """1 - the mean of luminance * structure over positions, channels and images (Wang et al. 2004, eq. 17).

    The default window, 11 x 11 with sigma 1.5, and the biased variances are the paper's. The mean then equals
    scikit-image's structural_similarity(gaussian_weights=True, use_sample_covariance=False). Backward keeps
    prediction, target and the derivatives by the local means of x, x^2 and x y, (3, N, C, H - 10, W - 10),
    which it distributes over the pixels of each window.
    """

    saves: ClassVar[tuple[str, ...]] = ("slopes",)

    @classmethod
    def samples(cls) -> list[tuple[SSIM, list[tuple[int, ...]]]]:
        return [(cls(), [(2, 2, 14, 16)] * 2), (cls(window_size=4, sigma=1.0), [(2, 3, 6, 5)] * 2)]

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        self.check(prediction, target)
        found = self.compare(prediction, target)
        similarity = found.luminance * found.structure
        return 1.0 - similarity.mean(), found.slopes(found.structure, found.luminance)

    def backward(
        self, grad_loss: Tensor, prediction: Tensor, target: Tensor, slopes: Tensor
    ) -> tuple[Tensor, None]:
        share = grad_loss * (-1.0 / max(1, slopes[0].numel()))
        return self.pull_back(slopes * share, prediction, target), None


class MSSSIM(SimilarityLoss):
    """1 - multi-scale SSIM: a product over scales of mean similarities (Wang et al. 2003, eq. 7).

    Each next scale halves the images by means over 2 x 2 pixels; an odd last row or column is left out. Let
    v_j be the mean of structure over the positions of scale j, and v_M, at the last scale, the mean of
    luminance * structure. The loss is 1 - the mean over images and channels of
        v_1^w_1 ... v_M^w_M,    w = `weights`, by default the paper's five.
    A v_j below 1e-6, where the structures are opposite, counts as 1e-6 and gets no gradient. Backward keeps
    prediction, target, v (M, N, C), and the derivatives by the local means of x, x^2 and x y.
    With M scales, height and width must be at least window_size 2^(M - 1) pixels: 176 by default.

    >>> image = torch.ones(1, 1, 14, 14)
    >>> MSSSIM(weights=(0.5, 0.5), window_size=7).forward(image, image)[0]
    tensor(0.)
    """

    saves: ClassVar[tuple[str, ...]] = ("scores", "slopes")
    weights: Weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

    @classmethod
    def samples(cls) -> list[tuple[MSSSIM, list[Tensor]]]:
        """Pairs of similar images: those of different ones give v_j near 0, where a power is very steep."""
        generator = torch.Generator().manual_seed(0)

        def pair(*shape: int) -> list[Tensor]:
            x, noise = torch.rand((2, *shape), generator=generator, dtype=torch.float64)
            return [x + 0.3 * (noise - 0.5), x]

        return [
            (cls(window_size=3, weights=(0.3, 0.2, 0.5)), pair(2, 2, 14, 19)),
            (cls(window_size=4, sigma=1.0, weights=(1.0,), data_range=2.0), pair(2, 1, 8, 5)),
        ]

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.check(prediction, target, scales=len(self.weights))
        scores: list[Tensor] = []
        slopes: list[Tensor] = []
        last = len(self.weights) - 1
        for scale, (x, y) in enumerate(self.pyramid(prediction, target)):
            found = self.compare(x, y)
            if scale == last:
                score = found.luminance * found.structure
                slope = found.slopes(found.structure, found.luminance)
            else:
                score, slope = found.structure, found.slopes(0.0, 1.0)
            scores.append(score.mean((2, 3)))
            slopes.append(slope.flatten(3))
        v = torch.stack(scores)
        return 1.0 - self.product(v).mean(), v, torch.cat(slopes, 3)

    def backward(
        self,
        grad_loss: Tensor,
        prediction: Tensor,
        target: Tensor,
        scores: Tensor,
        slopes: Tensor,
        specs: Specs,
    ) -> tuple[Tensor, None]:
        n, c, height, width = specs["prediction"].shape
        share = grad_loss * self.product(scores) * (-1.0 / max(1, n * c))  # (N, C)
        images = self.pyramid(prediction, target)
        places = [
            (height // 2**j - self.window_size + 1, width // 2**j - self.window_size + 1)
            for j in range(len(images))
        ]
        parts = torch.split(slopes, [h * w for h, w in places], 3)
        grad: Tensor | None = None
        for j in reversed(range(len(images))):
            x, y = images[j]
            h, w = places[j]
            v = scores[j]
            by_score = (share * self.weights[j] / (v * (h * w))).masked_fill(v <= _FLOOR, 0)
            by_place = parts[j].reshape(3, n, c, h, w) * by_score[:, :, None, None]
            own = self.pull_back(by_place, x, y)
            grad = own if grad is None else own + spread_halved(grad, x)
        assert grad is not None
        return grad, None

    def pyramid(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return both images at each scale, the largest first."""
        images = [(x, y)]
        for _ in self.weights[1:]:
            x, y = halve(x), halve(y)
            images.append((x, y))
        return images

    def product(self, scores: Tensor) -> Tensor:
        """Return v_1^w_1 ... v_M^w_M, (N, C), for scores v (M, N, C)."""
        total = torch.ones_like(scores[0])
        for v, weight in zip(scores, self.weights, strict=True):
            total = total * v.clamp_min(_FLOOR).pow(weight)
        return total


def blur(x: Tensor, bell: Sequence[float]) -> Tensor:
    """Return the weighted mean of each window in the image: (..., H, W) -> (..., H - k + 1, W - k + 1)."""
    for axis in (-2, -1):
        inside = x.shape[axis] - len(bell) + 1
        # Sums of shifted views: torch's convolutions of a single channel take several times as long.
        total = x.narrow(axis, 0, inside) * bell[0]
        for shift, weight in enumerate(bell[1:], start=1):
            total.add_(x.narrow(axis, shift, inside), alpha=weight)
        x = total
    return x


def spread(grad: Tensor, bell: Sequence[float]) -> Tensor:
    """Return the adjoint of `blur`. The window is symmetric, so this is `blur` of the padded gradient."""
    around = len(bell) - 1
    return blur(torch.constant_pad_nd(grad, [around] * 4), bell)


def halve(x: Tensor) -> Tensor:
    """Return the means over 2 x 2 pixels: (N, C, H, W) -> (N, C, H // 2, W // 2)."""
    n, c, height, width = x.shape
    h, w = height // 2, width // 2
    return x[:, :, : 2 * h, : 2 * w].reshape(n, c, h, 2, w, 2).mean((3, 5))


def spread_halved(grad: Tensor, x: Tensor) -> Tensor:
    """Return the adjoint of `halve` for an image of the shape of x."""
    n, c, h, w = grad.shape
    wide = (
        (0.25 * grad)[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)
    )
    return torch.constant_pad_nd(wide, [0, x.shape[3] - 2 * w, 0, x.shape[2] - 2 * h])

"""Gaussian noise, independent for all pixels or blurred."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
import pydantic
from numpy.typing import NDArray

from graphnet_denoise.draws import Draws
from graphnet_denoise.noise.base import Images, Noise, Range, Scenes, at_most_one, for_each


class Gaussian(Noise):
    """y = x + n, n ~ N(0, (std / 255)^2), independent for all pixels.

    `shared` is the correlation between the noise of the channels, 0 by default: n_c = sqrt(1 - shared) z_c +
    sqrt(shared) z in units of the deviation, with standard normal numbers z_c of each channel and z of all.

    >>> Gaussian(std=25).std
    (25.0, 25.0)
    """

    ranges: ClassVar[tuple[str, ...]] = ("std", "shared")
    level: ClassVar[str | None] = "std"
    gaussian: ClassVar[bool] = True
    std: Range
    shared: Annotated[Range, pydantic.AfterValidator(at_most_one)] = (0.0, 0.0)

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        noise = draws.normal(*scenes.shape[1:])
        if self.shared[1] > 0:
            shared = for_each(scenes.strength["shared"])
            noise *= np.sqrt(1 - shared)
            noise += np.sqrt(shared) * draws.normal(*scenes.shape[1:3], 1)
        noise *= for_each(scenes.strength["std"]) / 255
        noise += scenes.clean
        return noise


class Correlated(Noise):
    """Gaussian noise, blurred by a Gaussian kernel that keeps its standard deviation: y = x + c (k * n).

    n ~ N(0, (std / 255)^2), independent; k[i, j] = g[i] g[j] with g[i] = exp(-i^2 / (2 blur^2)) for
    |i| <= ceil(3 blur), in pixels; c = 1 / sum g^2 keeps the deviation. The correlation of two values d
    pixels apart along an axis is sum g[i] g[i + d] / sum g^2. Channels are independent.
    """

    ranges: ClassVar[tuple[str, ...]] = ("std",)
    level: ClassVar[str | None] = "std"
    gaussian: ClassVar[bool] = True
    std: Range
    blur: pydantic.PositiveFloat = 1.0

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        kernel = self.kernel()
        height, width, channels = scenes.shape[1:]
        margin = len(kernel) - 1  # drawn around the image too, so that its edges are like the rest
        noise = draws.normal(height + margin, width + margin, channels)
        noise = _filtered(_filtered(noise, kernel, 1), kernel, 2)
        noise *= for_each(scenes.strength["std"]) / 255
        noise += scenes.clean
        return noise

    def kernel(self) -> NDArray[np.float32]:
        """g, scaled to the norm 1, which keeps the variance of the noise."""
        radius = math.ceil(3 * self.blur)
        places = np.arange(-radius, radius + 1, dtype=np.float32)
        bell: NDArray[np.float32] = np.exp(-0.5 * (places / np.float32(self.blur)) ** 2)
        bell /= np.sqrt((bell**2).sum())
        return bell


def _filtered(images: Images, kernel: NDArray[np.float32], axis: int) -> Images:
    """Filter along one axis at the positions where the kernel lies inside: (n,) becomes (n - k + 1,)."""
    inside = images.shape[axis] - len(kernel) + 1
    views = np.moveaxis(images, axis, 0)
    total = views[:inside] * kernel[0]
    for i, weight in enumerate(kernel[1:], start=1):
        total += views[i : i + inside] * weight
    return np.ascontiguousarray(np.moveaxis(total, 0, axis))

"""Noise of sensors: counted photons, and pixels that fail."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import pydantic

from graphnet_denoise.draws import Draws
from graphnet_denoise.noise.base import Images, Noise, Range, Scenes, at_most_one, for_each


def _above_zero(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        raise ValueError(f"expected a number above 0, or a range of such, found {value[0]:g}")
    return value


class PoissonGaussian(Noise):
    """Counts of photons with Gaussian read noise (Foi et al. 2008): y = P / peak + n.

    P ~ Poisson(peak x), with `peak` the number of photons of a white pixel; n ~ N(0, (std / 255)^2). The mean
    is x, the variance x / peak + (std / 255)^2. Drawing counts takes several times as long as Gaussian noise.
    """

    ranges: ClassVar[tuple[str, ...]] = ("peak", "std")
    peak: Annotated[Range, pydantic.AfterValidator(_above_zero)]
    std: Range = (0.0, 0.0)

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        peak = for_each(scenes.strength["peak"])
        images = draws.poisson(np.maximum(scenes.clean, 0) * peak)
        images /= peak
        if self.std[1] > 0:
            images += draws.normal(*scenes.shape[1:]) * (for_each(scenes.strength["std"]) / 255)
        return images


class SaltAndPepper(Noise):
    """A `share` of the values of each channel becomes black or white, with equal chances.

    The mean is (1 - share) x + share / 2, which is not the clean image: training on two noisy versions with
    mse converges to this mean.
    """

    ranges: ClassVar[tuple[str, ...]] = ("share",)
    share: Annotated[Range, pydantic.AfterValidator(at_most_one)]

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        uniform = draws.uniform(*scenes.shape[1:])
        half = for_each(scenes.strength["share"]) / 2
        images = np.where(uniform < half, np.float32(0), scenes.clean)
        images[uniform >= 1 - half] = 1
        return images

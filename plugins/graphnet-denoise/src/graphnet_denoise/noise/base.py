"""Noise: a definition that makes noisy images of clean ones, with given random numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pydantic
from numpy.typing import NDArray

from graphnet.errors import ContractError, DescriptionError, Problem
from graphnet.sdk import Definition
from graphnet_denoise.draws import Draws
from graphnet_denoise.images import as_unit
from graphnet_denoise.sampling import block_means

Images = NDArray[np.float32]
"""(N, H, W, C) in 0..1, before noise takes them out of it."""


def _as_range(value: object) -> tuple[float, float]:
    ends = value if isinstance(value, (list, tuple)) else (value, value)
    match ends:
        case (bool(), _) | (_, bool()):
            pass
        case (int() | float() as low, int() | float() as high) if 0 <= low <= high < math.inf:
            return float(low), float(high)
    raise ValueError(
        f"expected a number of 0 or more, or a range [low, high] of such, found {value!r}"
    )


Range = Annotated[
    tuple[float, float],
    pydantic.BeforeValidator(_as_range, json_schema_input_type=float | tuple[float, float]),
]
"""One number of 0 or more, or [low, high], from which each image gets its own."""


@dataclass(frozen=True)
class Scenes:
    """The source of noisy images: crops of photos, seen as images of `size` (H, W).

    `crops` have the pixels (s * H, s * W, C) of each image, with s the side of the noise's blocks. `strength`
    has, by the name of each field that is a range, the value of each image: (N,).
    """

    crops: Sequence[NDArray[Any]]
    size: tuple[int, int]
    strength: Mapping[str, NDArray[np.float32]]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (len(self.crops), *self.size, self.crops[0].shape[2])

    @functools.cached_property
    def clean(self) -> Images:
        """The images without noise, each pixel the mean of its block; they are made at the first use."""
        images = np.empty(self.shape, np.float32)
        for image, crop in zip(images, self.crops, strict=True):
            image[...] = block_means(as_unit(crop), len(crop) // len(image))
        return images

    def of(self, places: NDArray[np.int64], *, prefix: str) -> Scenes:
        """Return some of the images, with the values whose names have this prefix; it is removed."""
        values = {
            name.removeprefix(prefix): numbers[places]
            for name, numbers in self.strength.items()
            if name.startswith(prefix)
        }
        return Scenes([self.crops[place] for place in places.tolist()], self.size, values)


class Noise(Definition):
    """How noisy images are made from clean ones; a subclass defines `noisy`, and names its ranges.

    `level` is the name of the range that a model can get as one more channel of its input: a standard
    deviation in 255ths. It is None if one number does not describe the noise. `gaussian` says that the noise
    is added and Gaussian: so is that of the mean of n noisy images, with 1 / sqrt(n) of the deviation. `clip`
    makes the images that a network sees like files, which hold no number outside 0..1. Targets are not
    clipped: in dark and in bright parts, the mean of clipped noise is not 0.
    """

    ranges: ClassVar[tuple[str, ...]] = ()
    level: ClassVar[str | None] = None
    gaussian: ClassVar[bool] = False
    clip: bool = False

    @property
    def smallest_block(self) -> int:
        """The smallest side of the block of source pixels of one pixel."""
        return 1

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        """Make a new array of noisy images, each with its own numbers from `draws`."""
        raise ContractError(f"{type(self).__name__} defines no noisy(scenes, draws)")

    def clean(self, scenes: Scenes) -> Images:
        """The images that networks learn to make of the noisy ones: by default the scenes themselves."""
        return scenes.clean

    def strength(self, draws: Draws) -> dict[str, NDArray[np.float32]]:
        """Draw a value from each range for each image: (N,)."""
        uniform = draws.uniform(len(self.ranges))
        bounds = [getattr(self, name) for name in self.ranges]
        return {
            name: (low + (high - low) * uniform[:, i]).astype(np.float32)
            for i, (name, (low, high)) in enumerate(zip(self.ranges, bounds, strict=True))
        }

    def block_sides(self, largest: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        """The side, in source pixels, of the block of one pixel, for each image; 1 for most noises."""
        return np.ones_like(largest)

    def mean_of(self, count: int, scenes: Scenes, draws: Draws) -> Images:
        """Make the mean of `count` noisy images of each scene, which are not clipped: a target."""
        total = self.noisy(scenes, draws)
        if count > 1 and self.gaussian:
            clean = self.clean(scenes)
            return clean + (total - clean) / np.float32(math.sqrt(count))
        for _ in range(count - 1):
            total += self.noisy(scenes, draws)
        return total / np.float32(count) if count > 1 else total

    def __call__(self, scenes: Scenes, draws: Draws) -> Images:
        """Make noisy images, and clip them to 0..1 if `clip` is set."""
        images = self.noisy(scenes, draws)
        return np.clip(images, 0, 1, out=images) if self.clip else images


def check_level(noise: Noise | None) -> None:
    """Raise DescriptionError unless the noise has a level that a model can get."""
    if noise is None or noise.level is None:
        found = "no noise" if noise is None else type(noise).__name__
        message = f"needs noise with a standard deviation, such as gaussian; found {found}"
        raise DescriptionError([Problem(message, "noise_level_map")])


def for_each(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reshape (N,) to (N, 1, 1, 1)."""
    return values[:, None, None, None]


def at_most_one(value: tuple[float, float]) -> tuple[float, float]:
    """Check that a range of shares ends at 1 or before."""
    if value[1] > 1:
        raise ValueError(f"expected a share of at most 1, found {value[1]:g}")
    return value

"""Noise that is made of other noise: one of several kinds for each image, and the noise of grey images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import NDArray

from graphnet.errors import DescriptionError, Problem
from graphnet.sdk import Definition
from graphnet_denoise.bank import in_grey
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise.base import Images, Noise, Scenes
from graphnet_denoise.noise.kinds import NOISES

Places = NDArray[np.int64]
NoiseField = Annotated[Noise, pydantic.BeforeValidator(NOISES.field)]


class Grey(Noise):
    """The images are made grey and get this noise in one channel, which is then repeated over all channels.

    Grey pictures that are saved as colour have such noise. In a `mixture`, it trains a model for colour to
    denoise grey images too.
    """

    noise: NoiseField

    def block_sides(self, largest: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        return self.noise.block_sides(largest, draws)

    def strength(self, draws: Draws) -> dict[str, NDArray[np.float32]]:
        return self.noise.strength(draws)

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        return _repeated(self.noise(_grey_scenes(scenes), draws), scenes)

    def mean_of(self, count: int, scenes: Scenes, draws: Draws) -> Images:
        return _repeated(self.noise.mean_of(count, _grey_scenes(scenes), draws), scenes)

    def clean(self, scenes: Scenes) -> Images:
        return _repeated(self.noise.clean(_grey_scenes(scenes)), scenes)


class Part(Definition):
    """A kind of noise in a mixture, and how often it is drawn, relative to the weights of the others."""

    noise: NoiseField
    weight: pydantic.PositiveFloat = 1.0


def _as_part(value: Any) -> Part:
    if isinstance(value, Part):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"expected {{noise: ..., weight: ...}}, found {value!r}")
    return Part(**value)


class Mixture(Noise):
    """Each image gets one of several kinds of noise, drawn by their weights.

    >>> some = {"noise": {"gaussian": {"std": 25}}, "weight": 3}
    >>> len(Mixture(parts=(some, {"noise": {"gaussian": {"std": 5}}})).parts)
    2
    """

    parts: Annotated[
        tuple[Annotated[Part, pydantic.BeforeValidator(_as_part)], ...],
        pydantic.Field(min_length=1, strict=False),
    ]

    def __post_init__(self) -> None:
        if any(part.noise.smallest_block > 1 for part in self.parts):
            message = "noise that makes small images of large ones cannot be a part of a mixture"
            raise DescriptionError([Problem(message, "parts")])

    def block_sides(self, largest: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        """The largest of the sides that the parts draw: the others get photos that are made smaller."""
        sides = np.ones_like(largest)
        for part in self.parts:
            sides = np.maximum(sides, part.noise.block_sides(largest, draws))
        return sides

    def strength(self, draws: Draws) -> dict[str, NDArray[np.float32]]:
        """The number of each image's part, and the values of all parts' ranges."""
        bounds = np.cumsum([part.weight for part in self.parts])
        drawn = draws.uniform() * np.float32(bounds[-1])
        chosen = np.minimum(np.searchsorted(bounds, drawn, side="right"), len(bounds) - 1)
        values = {"part": chosen.astype(np.float32)}
        for i, part in enumerate(self.parts):
            own = part.noise.strength(draws)
            values |= {f"{i}.{name}": numbers for name, numbers in own.items()}
        return values

    def noisy(self, scenes: Scenes, draws: Draws) -> Images:
        return self._made(scenes, lambda noise, own, places: noise(own, draws.of(places)))

    def mean_of(self, count: int, scenes: Scenes, draws: Draws) -> Images:
        return self._made(
            scenes, lambda noise, own, places: noise.mean_of(count, own, draws.of(places))
        )

    def clean(self, scenes: Scenes) -> Images:
        return self._made(scenes, lambda noise, own, _: noise.clean(own))

    def _made(self, scenes: Scenes, make: Callable[[Noise, Scenes, Places], Images]) -> Images:
        """Let the part of each image make it."""
        images = np.empty(scenes.shape, np.float32)
        for i, part in enumerate(self.parts):
            places = np.flatnonzero(scenes.strength["part"] == i)
            if not len(places):
                continue
            own = scenes.of(places, prefix=f"{i}.")
            images[places] = make(part.noise, own, places)
        return images


def _grey_scenes(scenes: Scenes) -> Scenes:
    return Scenes([in_grey(crop) for crop in scenes.crops], scenes.size, scenes.strength)


def _repeated(images: Images, scenes: Scenes) -> Images:
    return np.repeat(images, scenes.shape[3], axis=3)

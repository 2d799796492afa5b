"""Patches that are cut from images during training, with new positions, turns and noise in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import DescriptionError, Problem
from graphnet.sdk import DataSet, Shape, Stream
from graphnet_denoise.bank import CLEAN, NOISY, Pixels, read_bank
from graphnet_denoise.draws import GEOMETRY, Draws
from graphnet_denoise.noise import NOISES, Noise, check_level
from graphnet_denoise.supervision import SUPERVISIONS, Noise2Noise, Supervision, Views

_SINGLE = [name for name, cls in SUPERVISIONS.builtin.items() if cls.single]


class Patches(DataSet):
    """Patches cut at random positions from images in memory, with new noise in every epoch.

    All images have equal chances, and so have all positions in an image. Images smaller than a patch are left
    out.

    Attributes:
        path: a folder of images (PNG, JPEG, TIFF, WebP, BMP), an .npz or .npy of (N, C, H, W), or a list of
            these.
        size: the side of a patch.
        per_epoch: the number of patches in an epoch.
        noise: the noise that is added; None if the images are noisy already.
        supervision: what the network sees, and what its output is compared with.
        augment: whether patches are flipped and turned by right angles.
        noise_level_map: whether the input has one more channel, which holds the noise's standard deviation
            (1 for 255).
        channels: 1 makes all images grey, 3 makes them colour.
    """

    path: str | Annotated[tuple[str, ...], pydantic.Field(min_length=1, strict=False)]
    size: PositiveInt = 64
    per_epoch: PositiveInt = 20_000
    noise: Annotated[Noise | None, pydantic.BeforeValidator(NOISES.field)] = None
    supervision: Annotated[Supervision, pydantic.BeforeValidator(SUPERVISIONS.field)] = (
        Noise2Noise()
    )
    augment: bool = False
    noise_level_map: bool = False
    channels: Literal[1, 3] | None = None

    def __post_init__(self) -> None:
        if self.noise is None and not self.supervision.single:
            message = (
                f"{type(self.supervision).__name__} needs noise to be added: give `noise`, or, where the "
                f"images are noisy already, a supervision that learns from such: {', '.join(_SINGLE)}"
            )
            raise DescriptionError([Problem(message, "supervision")])
        if self.noise_level_map:
            check_level(self.noise)
        self.supervision.side(self.size)  # refuses a size that it cannot use

    def load(self) -> PatchStream:
        """Decode the images. Raises DataError for a folder or file that has no image that is large enough."""
        smallest = self.size * (self.noise.smallest_block if self.noise else 1)
        keys = NOISY if self.noise is None else CLEAN
        paths = (self.path,) if isinstance(self.path, str) else self.path
        images = read_bank(
            [Path(path) for path in paths], keys=keys, channels=self.channels, side=smallest
        )
        return PatchStream(self, images)


@dataclass(frozen=True)
class PatchStream(Stream):
    """The pairs of a Patches data set, made from its decoded images."""

    patches: Patches
    images: Sequence[Pixels]

    def __len__(self) -> int:
        return self.patches.per_epoch

    @property
    def input_shape(self) -> Shape:
        return (self._channels + self.patches.noise_level_map, self._side, self._side)

    @property
    def target_shapes(self) -> Mapping[str, Shape]:
        return self.patches.supervision.target_shapes((self._channels, self._side, self._side))

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        def draws(stream: int) -> Draws:
            return Draws(seed, epoch, indices, stream=stream)

        patches = self.patches
        crops = self._crops(draws(GEOMETRY))
        size, level_map = (patches.size, patches.size), patches.noise_level_map
        return patches.supervision.make(
            Views.of(crops, size, patches.noise, draws, level_map=level_map)
        )

    def source(self) -> Iterable[Pixels]:
        return self.images

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Any], progress: float
    ) -> tuple[Tensor, ...]:
        return self.patches.supervision.finish(batch, predict, progress)

    @property
    def _channels(self) -> int:
        return int(self.images[0].shape[2])

    @property
    def _side(self) -> int:
        return self.patches.supervision.side(self.patches.size)

    def _crops(self, draws: Draws) -> list[Pixels]:
        """Return a turned crop for each pair: views of the images, (s * size, s * size, C)."""
        size, noise = self.patches.size, self.patches.noise
        count = draws.count
        chosen = draws.below(np.full(count, len(self.images)))
        shapes = np.array([self.images[i].shape[:2] for i in chosen])
        sides = size * (
            noise.block_sides(shapes.min(axis=1) // size, draws) if noise else np.ones_like(chosen)
        )
        tops, lefts = (draws.below(shapes[:, axis] - sides + 1) for axis in (0, 1))
        turns = draws.below(np.full(count, 8 if self.patches.augment else 1))
        return [
            turned(self.images[i][top : top + side, left : left + side], turn)
            for i, top, left, side, turn in zip(chosen, tops, lefts, sides, turns, strict=True)
        ]


def turned(pixels: Pixels, turn: int) -> Pixels:
    """Return a view of a square image (H, W, C) in one of its 8 flips and turns; 0 leaves it as it is."""
    flipped = pixels[:, ::-1] if turn >= 4 else pixels
    return np.rot90(flipped, turn % 4)

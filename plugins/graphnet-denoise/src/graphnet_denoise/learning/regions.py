"""Regions: the parts of images that are in memory, so that all of them together keep to a bound.

Images that fit within the bound are held whole. Of others, regions are drawn, spread evenly over all scenes,
images and places; of a long scene, 16 to 31 images that follow one another are held together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from graphnet.errors import DataError
from graphnet.system import bytes_text
from graphnet_denoise.learning.frames import Frame, ImageSource

MEMORY = 1 << 30
"""The bytes that the images may take, unless another bound is given."""

_SIDES = (512, 256, 128)  # of regions; a patch and one that is held out fit into the smallest
_FEWEST = 16  # regions; if a side allows fewer, the next smaller one is taken
_TOGETHER = 16  # images of one scene


@dataclass(frozen=True, slots=True)
class Scene:
    """The images of a scene, and what their files' headers say: all have one size (C, H, W)."""

    frames: tuple[Frame, ...]
    shape: tuple[int, int, int]
    itemsize: int

    @classmethod
    def of(cls, frames: Sequence[Frame], sources: Mapping[Path, ImageSource]) -> Self:
        """A scene whose images have the size of the first one; the widest of their dtypes counts."""
        itemsize = max(held_dtype(sources[frame.file].dtype).itemsize for frame in frames)
        return cls(tuple(frames), sources[frames[0].file].shape, itemsize)

    @property
    def size_bytes(self) -> int:
        return len(self.frames) * int(np.prod(self.shape)) * self.itemsize


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a scene: some of its images, rows and columns."""

    frames: tuple[Frame, ...]
    rows: slice
    columns: slice


@dataclass(frozen=True, slots=True)
class Held:
    """The regions that are in memory; `side` is None if they are whole scenes."""

    regions: Sequence[Region]
    side: int | None

    def __str__(self) -> str:
        rows, columns = (
            max(axis.stop - axis.start for axis in axes)
            for axes in zip(*((r.rows, r.columns) for r in self.regions), strict=True)
        )
        return f"{len(self.regions)} regions of up to {rows} x {columns} pixels"


def held_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The dtype in which pixels are in memory: uint8 and uint16 stay, everything else becomes float32."""
    return dtype if dtype in (np.uint8, np.uint16) else np.dtype(np.float32)


def choose_regions(scenes: Sequence[Scene], memory: int) -> Held:
    """Choose regions that take at most `memory` bytes; the same ones each time.

    Raises DataError if not even the smallest region fits.
    """
    if sum(scene.size_bytes for scene in scenes) <= memory:
        return Held(
            [Region(s.frames, slice(0, s.shape[1]), slice(0, s.shape[2])) for s in scenes], None
        )
    for side in _SIDES:
        grids = [_Grid.of(scene, side) for scene in scenes]
        largest = max(grid.largest_bytes for grid in grids)
        if memory // largest >= (_FEWEST if side > _SIDES[-1] else 1):
            return Held(list(_drawn(grids, memory // largest)), side)
    raise DataError(
        f"the images may take {bytes_text(memory)} of memory, and the smallest region of a scene takes "
        f"{bytes_text(largest)}. Allow more with --memory."
    )


@dataclass(frozen=True, slots=True)
class _Grid:
    """A scene that is cut into parts of nearly equal size along its images, rows and columns."""

    scene: Scene
    parts: tuple[int, int, int]

    @classmethod
    def of(cls, scene: Scene, side: int) -> Self:
        _, height, width = scene.shape
        lengths = ((len(scene.frames), _TOGETHER), (height, side), (width, side))
        images, rows, columns = (max(1, length // part) for length, part in lengths)
        return cls(scene, (images, rows, columns))

    def __len__(self) -> int:
        return int(np.prod(self.parts))

    @property
    def lengths(self) -> tuple[int, int, int]:
        """The scene's images, rows and columns."""
        _, height, width = self.scene.shape
        return len(self.scene.frames), height, width

    @property
    def largest_bytes(self) -> int:
        sides = [
            -(-length // parts) for length, parts in zip(self.lengths, self.parts, strict=True)
        ]
        return int(np.prod(sides)) * self.scene.shape[0] * self.scene.itemsize

    def region(self, number: int) -> Region:
        places = np.unravel_index(number, self.parts)
        images, rows, columns = (
            slice(length * int(at) // parts, length * (int(at) + 1) // parts)
            for length, at, parts in zip(self.lengths, places, self.parts, strict=True)
        )
        return Region(self.scene.frames[images], rows, columns)


def _drawn(grids: Sequence[_Grid], count: int) -> Iterator[Region]:
    """Draw at most `count` regions: one of each of so many equal shares of all of them."""
    ends = np.cumsum([len(grid) for grid in grids])
    count = min(count, int(ends[-1]))
    shares = (np.arange(count) + np.random.default_rng(0).random(count)) * (ends[-1] / count)
    for number in sorted({*shares.astype(np.int64).tolist()}):  # two shares may meet in one region
        grid = int(np.searchsorted(ends, number, side="right"))
        yield grids[grid].region(number - int(ends[grid]) + len(grids[grid]))

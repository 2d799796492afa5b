"""Noisy pairs by block sampling, from any folder of photos, as in the course's data set.

A square crop of a photo is divided into size x size blocks. Each noisy pixel is one random source pixel of
its block, with all its channels. Two such draws are two noisy images of one scene; the means of the blocks
are the clean image. The noise is therefore real detail below the pixel, neither Gaussian nor independent of
the image, and its mean is the clean image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from graphnet.errors import DataError
from graphnet.sdk import DataSet, Pairs
from graphnet_denoise.images import find_images, image_size, list_images, read_rgb

SMALLEST_BLOCK = 4
"""Side in source pixels of the smallest block; smaller ones would give hardly any noise."""

_CROPS = 1024  # crops drawn at a time, which bounds the memory for indices


class Photos(DataSet):
    """Noisy pairs sampled from a folder of photos; target "clean" gives noisy-clean pairs instead.

    A photo is a PNG, JPEG, TIFF, WebP or BMP file with at least 4 * size pixels on each side. Grey photos are
    repeated over the channels, and alpha is dropped. Each photo gives the same number of random crops, or one
    more if `pairs` cannot be divided equally. Equal fields and equal files give equal pairs, whose inputs do
    not depend on `target`. Neighbouring pairs come from different photos; the order of the photos is
    shuffled.

    Attributes:
        path: the folder.
        pairs: the number of pairs.
        size: the side of the images in the pairs.
        seed: the seed of the crops and of their pixels.
        target: "noisy" for training without clean images, "clean" for evaluation.
    """

    path: str
    pairs: PositiveInt = 50_000
    size: PositiveInt = 32
    seed: NonNegativeInt = 0
    target: Literal["noisy", "clean"] = "noisy"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether the path is a folder with at least one image directly in it."""
        return path.is_dir() and bool(find_images(path).images)

    def load(self) -> Pairs:
        """Decode each photo once, and sample inputs and targets, uint8 (pairs, 3, size, size).

        Raises DataError for a folder without photos that are large enough, and for a damaged photo.
        """
        photos = self.usable()
        order = np.random.default_rng(self.seed).permutation(len(photos))
        inputs, targets = self._allocate(), self._allocate()
        for place, index in enumerate(order[: self.pairs]):
            # Into every len(photos)-th row: a cut at any row treats all photos alike.
            rows = slice(place, None, len(photos))
            count = len(range(self.pairs)[rows])
            sampled = sample_blocks(
                read_rgb(photos[index]),
                count=count,
                size=self.size,
                seed=(self.seed, int(index)),
                target=self.target,
            )
            inputs[rows], targets[rows] = sampled
        return Pairs(torch.from_numpy(inputs), torch.from_numpy(targets))

    def usable(self, advice: str | None = None) -> list[Path]:
        """Return the photos that are large enough.

        Raises DataError, with the advice, if none is; the default is to set another size.
        """
        needed = SMALLEST_BLOCK * self.size
        sizes = {path: image_size(path) for path in list_images(Path(self.path))}
        usable = [path for path, size in sizes.items() if min(size) >= needed]
        if not usable:
            largest = max(sizes.values(), key=min)
            most = max(1, min(largest) // SMALLEST_BLOCK)
            own = f"Give larger photos, or set size to at most {most}"
            raise DataError(
                f"{self.path}: expected photos of at least {needed} x {needed} pixels "
                f"({SMALLEST_BLOCK} times size {self.size}), but the largest of {len(sizes)} is "
                f"{largest[0]} x {largest[1]}. {advice or own}."
            )
        return usable

    def _allocate(self) -> NDArray[np.uint8]:
        shape = (self.pairs, 3, self.size, self.size)
        try:
            return np.empty(shape, np.uint8)
        except (MemoryError, ValueError) as error:
            raise DataError(
                f"{self.path}: {self.pairs} pairs of {self.size} x {self.size} do not fit into the "
                f"memory. Set fewer pairs or a smaller size."
            ) from error


def sample_blocks(
    photo: NDArray[np.uint8],
    *,
    count: int,
    size: int = 32,
    seed: int | tuple[int, ...] = 0,
    target: Literal["noisy", "clean"] = "noisy",
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Sample pairs from crops of a photo, uint8 (H, W, 3): inputs and targets, uint8 (count, 3, size, size).

    The side of a crop is size * s, with s uniform in 4..min(H, W) // size; its position is uniform. A noisy
    pixel is a uniformly drawn pixel of its s x s block; a clean one is the block's mean, with halves rounded
    up. Raises DataError for a photo with a side of less than 4 * size pixels.

    >>> photo = np.full((16, 16, 3), 7, np.uint8)
    >>> noisy, clean = sample_blocks(photo, count=1, size=2, target="clean")
    >>> noisy.shape, bool((noisy == clean).all())
    ((1, 3, 2, 2), True)
    """
    height, width = photo.shape[:2]
    largest = min(height, width) // size
    if largest < SMALLEST_BLOCK:
        raise DataError(
            f"a photo of {height} x {width} pixels is too small for {size} x {size} blocks of at "
            f"least {SMALLEST_BLOCK} x {SMALLEST_BLOCK}; give one of {SMALLEST_BLOCK * size} a "
            f"side."
        )
    # Two streams, so that the inputs stay the same whatever the target is.
    seeds = np.random.SeedSequence(seed).spawn(2)
    first, second = np.random.default_rng(seeds[0]), np.random.default_rng(seeds[1])
    planes = np.ascontiguousarray(photo.transpose(2, 0, 1)).reshape(3, height * width)
    sums = _cumulated(photo) if target == "clean" else None

    inputs = np.empty((count, 3, size, size), np.uint8)
    targets = np.empty_like(inputs)
    for start in range(0, count, _CROPS):
        part = slice(start, min(count, start + _CROPS))
        crops = _draw_crops(first, part.stop - part.start, size, largest, (height, width))
        inputs[part] = _draw_pixels(first, planes, crops, width)
        targets[part] = (
            _draw_pixels(second, planes, crops, width) if sums is None else _means(sums, crops)
        )
    return inputs, targets


@dataclass(frozen=True, slots=True)
class _Crops:
    """The side of each crop's blocks (n,), and the first source rows and columns of the blocks (n, size)."""

    side: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def _draw_crops(
    rng: np.random.Generator, count: int, size: int, largest: int, shape: tuple[int, int]
) -> _Crops:
    side = rng.integers(SMALLEST_BLOCK, largest, count, endpoint=True)
    top = rng.integers(0, shape[0] - size * side, endpoint=True)
    left = rng.integers(0, shape[1] - size * side, endpoint=True)
    steps = side[:, None] * np.arange(size)
    return _Crops(side, top[:, None] + steps, left[:, None] + steps)


def _draw_pixels(
    rng: np.random.Generator, planes: NDArray[np.uint8], crops: _Crops, width: int
) -> NDArray[np.uint8]:
    """Draw one source pixel from each block of planes (3, H * W): (n, 3, size, size)."""
    side = crops.side[:, None, None]
    size = crops.rows.shape[1]
    pick = rng.integers(0, side * side, (len(side), size, size))  # one number for row and column
    row, column = np.divmod(pick, side)
    source = (crops.rows[:, :, None] + row) * width + crops.columns[:, None, :] + column
    drawn: NDArray[np.uint8] = np.take(planes, source, axis=1)  # (3, n, size, size)
    return drawn.transpose(1, 0, 2, 3)


def _cumulated(photo: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sums over all rows above and all columns to the left: int64 (H + 1, W + 1, 3)."""
    sums = np.zeros((photo.shape[0] + 1, photo.shape[1] + 1, 3), np.int64)
    sums[1:, 1:] = photo.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    return sums


def _means(sums: NDArray[np.int64], crops: _Crops) -> NDArray[np.uint8]:
    """The mean of each block, from the cumulated sums at its corners: (n, 3, size, size)."""
    side = crops.side[:, None]
    # The end of one block is the start of the next: size + 1 borders an axis.
    rows = np.concatenate((crops.rows, crops.rows[:, -1:] + side), axis=1)
    columns = np.concatenate((crops.columns, crops.columns[:, -1:] + side), axis=1)
    corners = sums[rows[:, :, None], columns[:, None, :]]  # (n, size + 1, size + 1, 3)
    blocks = np.diff(np.diff(corners, axis=1), axis=2)
    area = (side * side)[:, :, None, None]
    means: NDArray[np.uint8] = ((2 * blocks + area) // (2 * area)).astype(np.uint8)
    return means.transpose(0, 3, 1, 2)

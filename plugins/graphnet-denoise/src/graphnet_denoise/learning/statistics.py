"""Measure the noise of images: its level, its dependence on brightness, and its correlation between pixels.

From two images of a scene that stands still, the noise is the difference divided by sqrt(2): exact. From
single images it is measured where they are smoothest. Images are cut into blocks, and the blocks are sorted
into classes of equal brightness. In each class the blocks whose coarse structure (the means of cells of 4 x 4
pixels) varies least are taken, and a plane is subtracted from each.

Where the picture has structure everywhere, as in bright cells, it makes the remainders of neighbouring pixels
alike; it never makes them less alike. So the correlation is that of the classes in which it is least. If it
says that the noise is independent from pixel to pixel, the level is that of the second differences of the
remainders, in which there is little of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""(C, H, W): the numbers of a file, as float32."""

_BLOCK, _CELL = 16, 4
_CLASSES = 8
_SMOOTHEST = 0.1  # this share of the blocks of a class is taken
_LEAST = 0.25  # the share of the classes whose correlation counts, in single images
_INDEPENDENT = 0.15  # noise of neighbouring pixels with a lower correlation
_REACH = 6  # pixels up to which correlations are measured
_CLIPPED = 0.02  # a block in which so many pixels have the extreme values has no whole noise


@dataclass(frozen=True, slots=True)
class NoiseStatistics:
    """The noise of some images, in the numbers of their files.

    Attributes:
        level: the standard deviation, the root of the mean variance over the classes of brightness.
        dark: the standard deviation in the darkest class.
        bright: the standard deviation in the brightest class.
        along_rows: the correlation of two pixels of one row, 1, 2, ... pixels apart.
        along_columns: the correlation of two pixels of one column, 1, 2, ... pixels apart.
        spread: the standard deviation of the images themselves, noise included.
        mean: the mean of the images.
    """

    level: float
    dark: float
    bright: float
    along_rows: tuple[float, ...]
    along_columns: tuple[float, ...]
    spread: float
    mean: float

    @property
    def grows(self) -> bool:
        """Whether the noise depends on brightness, as that of counted photons does."""
        return self.bright > 1.3 * max(self.dark, 1e-12)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Blocks (N, 16, 16) of noise, and the mean brightness of each (N,)."""

    noise: NDArray[np.float64]
    brightness: NDArray[np.float64]


def peak_of(numbers: NDArray[np.float32]) -> float:
    """The range from black to white of images with these numbers, without their most extreme 0.1 %."""
    low, high = np.percentile(numbers, (0.1, 99.9))
    return max(float(high - low), 1e-12)


def noise_statistics(
    images: Sequence[Image], again: Sequence[Image] | None = None
) -> NoiseStatistics:
    """Measure the noise of images; `again` has other images of the same scenes, which stand still.

    Raises ValueError if no image has a block of 16 x 16 pixels.
    """
    blocks = _joined(
        [_smooth_blocks(image) for image in images]
        if again is None
        else [_differences(a, b) for a, b in zip(images, again, strict=True)]
    )
    squares = (blocks.noise**2).mean(axis=(1, 2))
    order = np.argsort(blocks.brightness, kind="stable")
    classes = [part for part in np.array_split(order, _CLASSES) if len(part)]
    counted = order if again is not None else _least_correlated(blocks.noise, squares, classes)
    along_rows, along_columns = (
        _correlations(blocks.noise[counted], squares[counted], axis=axis) for axis in (2, 1)
    )
    if again is None and max(along_rows[0], along_columns[0]) < _INDEPENDENT:
        squares = _second_differences(blocks.noise)
    deviations = [float(np.sqrt(np.mean(squares[part]))) for part in classes]
    values = np.concatenate([image.ravel() for image in images]).astype(np.float64)
    return NoiseStatistics(
        level=float(np.sqrt(squares.mean())),
        dark=deviations[0],
        bright=deviations[-1],
        along_rows=along_rows,
        along_columns=along_columns,
        spread=float(values.std()),
        mean=float(values.mean()),
    )


def neighbour_correlations(images: Sequence[Image]) -> tuple[float, float]:
    """The correlation of neighbouring pixels of a row, and of a column, in all blocks of images of noise."""
    planes = [plane.astype(np.float64) for image in images for plane in image]
    blocks = np.concatenate([_cut(plane) for plane in planes])
    blocks = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    squares = (blocks**2).mean(axis=(1, 2))
    return _correlations(blocks, squares, axis=2)[0], _correlations(blocks, squares, axis=1)[0]


def _least_correlated(
    noise: NDArray[np.float64], squares: NDArray[np.float64], classes: Sequence[NDArray[np.intp]]
) -> NDArray[np.intp]:
    """The blocks of the classes in which neighbouring pixels are correlated least."""

    def near(part: NDArray[np.intp]) -> float:
        return sum(_correlations(noise[part], squares[part], axis=axis)[0] for axis in (1, 2))

    textured = [part for part in classes if squares[part].any()]
    least = sorted(textured or classes, key=near)
    return np.concatenate(least[: max(1, round(_LEAST * len(least)))])


def _second_differences(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean square of each block's second differences along both axes, in the unit of noise (N,).

    The mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]] (Immerkaer 1996) has the sum of squares 36.
    """
    squares: NDArray[np.float64] = np.diff(np.diff(noise, 2, axis=1), 2, axis=2) ** 2
    return np.asarray(squares.mean(axis=(1, 2)) / 36)


def _correlations(
    noise: NDArray[np.float64], squares: NDArray[np.float64], *, axis: int
) -> tuple[float, ...]:
    """The correlation of pixels 1.._REACH apart along an axis; each block counts alike."""
    unit = np.moveaxis(noise, axis, -1)[squares > 0]
    if not len(unit):
        return (0.0,) * _REACH
    unit = unit / np.sqrt(squares[squares > 0])[:, None, None]
    products = (unit[..., : _BLOCK - lag] * unit[..., lag:] for lag in range(1, _REACH + 1))
    return tuple(float(product.mean()) for product in products)


def _joined(parts: Sequence[_Blocks]) -> _Blocks:
    noise = np.concatenate([part.noise for part in parts])
    if not len(noise):
        raise ValueError(f"expected images of at least {_BLOCK} x {_BLOCK} pixels")
    return _Blocks(noise, np.concatenate([part.brightness for part in parts]))


def _cut(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut a plane (H, W) into blocks (N, 16, 16)."""
    rows, columns = (side // _BLOCK for side in plane.shape)
    inside = plane[: rows * _BLOCK, : columns * _BLOCK]
    blocks = inside.reshape(rows, _BLOCK, columns, _BLOCK).transpose(0, 2, 1, 3)
    return blocks.reshape(-1, _BLOCK, _BLOCK)


def _whole(image: Image) -> NDArray[np.bool_]:
    """Which blocks of an image (C, H, W) have hardly any pixel at its extreme values: bool (N,)."""
    low, high = image.min(), image.max()
    blocks = np.concatenate([_cut(plane) for plane in image])
    extreme = ((blocks <= low) | (blocks >= high)).mean(axis=(1, 2)) < _CLIPPED
    return extreme if extreme.any() else np.ones_like(extreme)


def _differences(first: Image, second: Image) -> _Blocks:
    """The noise of the first image, from the difference: it has sqrt(2) times the deviation."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    noise = np.concatenate([_cut(plane) for plane in (a - b) / np.sqrt(2)])
    brightness = np.concatenate([_cut(plane) for plane in (a + b) / 2]).mean(axis=(1, 2))
    whole = _whole(first)
    noise = noise[whole]
    return _Blocks(noise - noise.mean(axis=(1, 2), keepdims=True), brightness[whole])


def _smooth_blocks(image: Image) -> _Blocks:
    blocks = np.concatenate([_cut(plane.astype(np.float64)) for plane in image])[_whole(image)]
    if not len(blocks):
        return _Blocks(blocks, blocks.mean(axis=(1, 2)))
    blocks_mean = blocks.mean(axis=(1, 2))
    residual = _without_plane(blocks)
    cells = residual.reshape(-1, _BLOCK // _CELL, _CELL, _BLOCK // _CELL, _CELL).mean(axis=(2, 4))
    coarse = cells.var(axis=(1, 2))
    chosen = []
    for part in np.array_split(np.argsort(blocks_mean, kind="stable"), _CLASSES):
        count = max(1, round(_SMOOTHEST * len(part)))
        chosen.append(part[np.argsort(coarse[part], kind="stable")[:count]])
    index = np.concatenate(chosen)
    return _Blocks(residual[index], blocks_mean[index])


def _without_plane(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract from each block the plane that comes closest to it."""
    place = np.arange(_BLOCK) - (_BLOCK - 1) / 2
    norm = _BLOCK * (place**2).sum()
    rows = (blocks * place[:, None]).sum(axis=(1, 2)) / norm
    columns = (blocks * place).sum(axis=(1, 2)) / norm
    planes = rows[:, None, None] * place[:, None] + columns[:, None, None] * place
    rest: NDArray[np.float64] = blocks - blocks.mean(axis=(1, 2), keepdims=True) - planes
    return rest

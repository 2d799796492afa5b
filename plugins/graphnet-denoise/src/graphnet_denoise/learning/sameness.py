"""Compare noisy images: do they show the same scene, and does it stand still between them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphnet_denoise.learning.statistics import Image
from graphnet_denoise.sampling import block_means

Plane = NDArray[np.float64]

SAME = 0.4
"""Two images whose structure correlates by this much show the same scene."""

SIDE = 768
"""The side in pixels of the middle of an image that is compared."""

_SCALES = (4, 8, 16)  # sides of the cells whose means are compared, in pixels
_TILE = 16  # the side in cells of a tile, whose motion is measured
_CELLS = (2, 4, 8)  # sides in pixels of the cells in which motion is measured
_MOVED_PIXELS, _CERTAIN = (
    0.7,
    4.0,
)  # a motion counts from this size, if it is so many standard errors
_FEWEST = 4  # tiles with structure; from fewer nothing is concluded
_OTHER, _UNLIKE = 0.5, 4.0  # times the structure, and times the median tile's difference
_MOVED_SHARE = 0.2  # of the tiles

_DRIFT_SCALES = (
    1,
    4,
)  # sides in pixels of the cells in which images far apart in time are compared
_LONE = 0.02  # of the cells of a tile may differ by anything, as by cosmic rays
_GROWN = 1.1  # times the difference of neighbours, in the whole image
_TILE_GROWN, _FEW_TILES = 2.0, 0.02  # times that in one tile, and in so many tiles

LEAST_SIDE = _CELLS[0] * _TILE
"""Images with a smaller side cannot be compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two images of one size compare.

    Attributes:
        correlation: of their structures without noise, from -1 to 1, at the best of several scales.
        moved: the share of the tiles, among those with structure, in which something moved; 0..1.
        shift: the median motion of these tiles in pixels.
    """

    correlation: float
    moved: float
    shift: float

    @property
    def same(self) -> bool:
        """Whether both show the same scene, still or not."""
        return self.correlation >= SAME

    @property
    def still(self) -> bool:
        """Whether both show the same scene at the same place, except for a few tiles."""
        return self.same and self.moved <= _MOVED_SHARE


def compare_images(first: Image, second: Image) -> Comparison:
    """Compare two images (C, H, W); images of two sizes have nothing in common.

    >>> scene = np.random.default_rng(0).random((1, 128, 128), np.float32).cumsum(2)
    >>> compare_images(scene, scene).still
    True
    """
    if first.shape != second.shape or min(first.shape[1:]) < LEAST_SIDE:
        return Comparison(0.0, 1.0, 0.0)
    a, b = (image.astype(np.float64).mean(axis=0) for image in (first, second))
    correlation = max(_correlated(a, b, scale) for scale in _SCALES)
    if correlation < SAME:
        return Comparison(correlation, 1.0, 0.0)
    moved, shift = _motion(a, b)
    return Comparison(correlation, moved, shift)


@dataclass(frozen=True, slots=True)
class Drift:
    """How images that are far apart in time differ, compared with neighbours.

    Attributes:
        growth: their mean square difference, noise included, divided by that of neighbours: 1 if the scene
            stands still.
        changed: the share of the tiles in which something moved or changed.
    """

    growth: float
    changed: float

    @property
    def still(self) -> bool:
        """Whether the scene stands still for all of the time."""
        return self.growth <= _GROWN and self.changed <= _FEW_TILES


def measure_drift(near: Sequence[tuple[Image, Image]], far: Sequence[tuple[Image, Image]]) -> Drift:
    """Compare pairs of images (C, H, W) that are neighbours with pairs that are far apart in time.

    Neighbours differ by their noise, so what differs more shows motion or change. Lone pixels do not count,
    such as those of cosmic rays. For single tiles, a change of the light between two images does not count.

    >>> still = np.random.default_rng(0).normal(size=(4, 1, 64, 64)).astype(np.float32)
    >>> measure_drift([(still[0], still[1])], [(still[2], still[3])]).still
    True
    """
    close, apart = ([_differences(*pair) for pair in pairs] for pairs in (near, far))
    growth = _growth([plain for plain, _ in close], [plain for plain, _ in apart])
    changed = 0.0
    for side in _DRIFT_SCALES:
        before, after = (
            np.mean([_tile_squares(cell_means(d, side)) for _, d in found], axis=0)
            for found in (close, apart)
        )
        if before.size:
            changed = max(changed, float((after > _TILE_GROWN * before + 1e-30).mean()))
    return Drift(growth, changed)


def _differences(first: Image, second: Image) -> tuple[Plane, Plane]:
    """The difference of two images, and the same without a change of gain and offset."""
    a, b = (image.astype(np.float64).mean(axis=0) for image in (first, second))
    difference, mean = a - b, (a + b) / 2
    mean -= mean.mean()
    gain = float((difference * mean).sum()) / max(float((mean * mean).sum()), 1e-30)
    return difference, difference - difference.mean() - gain * mean


def _growth(near: Sequence[Plane], far: Sequence[Plane]) -> float:
    before, after = (
        np.mean([_tile_squares(plane).mean() for plane in planes]) for planes in (near, far)
    )
    return float((after + 1e-30) / (before + 1e-30))


def _tile_squares(difference: Plane) -> NDArray[np.float64]:
    """The mean square difference in each tile, without its largest ones."""
    tiles = _tiles(difference)
    squares = np.sort(np.square(tiles).reshape(len(tiles), -1), axis=1)
    kept: NDArray[np.float64] = squares[:, : round((1 - _LONE) * squares.shape[1])].mean(axis=1)
    return kept


def cell_means(plane: Plane, side: int) -> Plane:
    """The means of the cells of side x side pixels that lie inside: (H, W) becomes (H // side, W // side)."""
    rows, columns = (length // side for length in plane.shape)
    inside = plane[: rows * side, : columns * side]
    return block_means(inside, side)


def _correlated(a: Plane, b: Plane, side: int) -> float:
    """The correlation of the structures at one scale; light that varies slowly is left out."""
    x, y = (_structure(cell_means(plane, side)) for plane in (a, b))
    if x.size < _TILE:
        return 0.0
    xx, yy, xy = float((x * x).sum()), float((y * y).sum()), float((x * y).sum())
    if xx == 0 or yy == 0:
        return 0.0
    return float(xy / np.sqrt(xx * yy))


def _structure(cells: Plane) -> Plane:
    """Subtract from each inner cell the mean of the 8 cells around it."""
    if min(cells.shape) < 3:
        return np.zeros((0, 0))
    total = sum(
        cells[i : cells.shape[0] - 2 + i, j : cells.shape[1] - 2 + j]
        for i in range(3)
        for j in range(3)
    )
    inner = cells[1:-1, 1:-1]
    structure: Plane = inner - (total - inner) / 8
    return structure


def _motion(a: Plane, b: Plane) -> tuple[float, float]:
    """The share of moved tiles among those with structure, and the median of their motions in pixels."""
    b = (b - b.mean()) * (a.std() / max(b.std(), 1e-12)) + a.mean()
    if shift := _shift(a, b):
        return 1.0, shift
    moved, motions = 0.0, [0.0]
    for side in _CELLS:
        if min(a.shape) // side < _TILE:
            break
        found = _moved_tiles(cell_means(a, side), cell_means(b, side), side)
        moved = max(moved, found[0])
        motions.append(found[1])
    return moved, max(motions)


def _shift(a: Plane, b: Plane) -> float:
    """The motion in pixels of the whole image, 0 if it is below one cell: the peak of the correlation."""
    x, y = (_structure(cell_means(plane, _CELLS[0])) for plane in (a, b))
    product = np.fft.irfft2(np.fft.rfft2(x) * np.conj(np.fft.rfft2(y)), s=x.shape)
    place = np.unravel_index(int(product.argmax()), product.shape)
    signed = [min(at, side - at) for at, side in zip(place, product.shape, strict=True)]
    return float(np.hypot(*signed)) * _CELLS[0]


def _moved_tiles(a: Plane, b: Plane, side: int) -> tuple[float, float]:
    """The share of moved tiles and the median of their motions in pixels, for cells of `side` pixels.

    In each tile, the difference of the images is explained by a motion (u, v), as by Lucas & Kanade (1981):
    a - b = u dm/dy + v dm/dx, with m the mean of both images. A tile of which another thing is seen in the
    second image has a coarse difference that is as large as its structure, and unlike the other tiles.
    """
    mean, difference = (a + b) / 2, a - b
    slopes = [np.asarray(np.gradient(mean, axis=axis)) for axis in (0, 1)]
    tiles = [_tiles(plane) for plane in (difference, *slopes, mean)]
    coarse, structure = (np.array([cell_means(tile, 4).var() for tile in tiles[i]]) for i in (0, 3))
    other = coarse > np.maximum.reduce(
        [_OTHER * structure, np.full_like(structure, _OTHER * np.median(structure))]
    )
    other &= coarse > _UNLIKE * np.median(coarse)
    count, moved, motions = int(other.sum()), int(other.sum()), []
    for d, gy, gx in zip(*(tile[~other] for tile in tiles[:3]), strict=True):
        normal = np.array([[(gy * gy).sum(), (gy * gx).sum()], [(gy * gx).sum(), (gx * gx).sum()]])
        low, high = np.linalg.eigvalsh(normal)
        if low < 1e-6 * high or high <= 0:
            continue
        u, v = np.linalg.solve(normal, [(gy * d).sum(), (gx * d).sum()])
        error = float(np.sqrt((d - u * gy - v * gx).var() / low)) * side
        if error > _MOVED_PIXELS / 2:
            continue  # too little structure, for this noise, to see a motion of this size
        size = float(np.hypot(u, v)) * side
        count += 1
        moved += size > _MOVED_PIXELS and size > _CERTAIN * error
        motions.append(size)
    if count < _FEWEST:
        return 0.0, 0.0
    return moved / count, float(np.median(motions)) if motions else 0.0


def _tiles(plane: Plane) -> NDArray[np.float64]:
    rows, columns = (side // _TILE for side in plane.shape)
    inside = plane[: rows * _TILE, : columns * _TILE]
    tiles = inside.reshape(rows, _TILE, columns, _TILE).transpose(0, 2, 1, 3)
    return tiles.reshape(-1, _TILE, _TILE)

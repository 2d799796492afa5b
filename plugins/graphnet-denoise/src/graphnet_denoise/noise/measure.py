"""Find out what noise an image has: how strong it is, and whether neighbouring pixels and channels share it.

The flattest parts of an image show its noise. The image is divided into squares; a plane is fitted to each
square and subtracted; the squares with the smallest variance are kept. What is left in them is mostly noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphnet_denoise.grey import is_grey

SIDE = 12
"""The side of the squares, in pixels: no multiple of 8, so a JPEG's blocks fall everywhere in a square."""

_KEPT = 0.05  # the share of the squares that is kept
_FEWEST = 16
_MOST_SQUARES = 1 << 14
_MOST_CUT = 0.02  # of a square's values may be black or white, where noise is clipped
_PARTS = 4  # of an image, by brightness
_MOST_STEPS = 1 << 20
_CELL = 8  # of a JPEG
_NEIGHBOURS, _SHARED = 0.15, 0.3  # from these correlations on, neighbours or channels share noise
_CLEAR = 8.0  # deviations by which the steps at a JPEG's blocks exceed the steps elsewhere


@dataclass(frozen=True, slots=True)
class FoundNoise:
    """The noise of an image.

    Attributes:
        std: the standard deviation in 255ths, in the flattest parts of a medium brightness.
        neighbours: the correlation between adjacent pixels; 0 if each pixel's noise is independent.
        channels: the correlation between channels; None for one channel, or for equal channels.
        blocks: whether the picture has the blocks of a JPEG.
    """

    std: float
    neighbours: float
    channels: float | None
    blocks: bool

    @property
    def is_independent(self) -> bool:
        """Whether the noise is like Gaussian noise that was added to the picture itself."""
        shared = self.channels is not None and self.channels > _SHARED
        return not (self.blocks or shared or self.neighbours > _NEIGHBOURS)

    def describe(self) -> str:
        """Say what was found, in half a sentence.

        >>> FoundNoise(std=4.2, neighbours=0.7, channels=0.6, blocks=False).describe()
        'standard deviation 4.2 of 255, correlated between neighbouring pixels (0.7) and channels (0.6)'
        """
        alike = []
        if self.neighbours > _NEIGHBOURS:
            alike.append(f"neighbouring pixels ({self.neighbours:.1f})")
        if self.channels is not None and self.channels > _SHARED:
            alike.append(f"channels ({self.channels:.1f})")
        correlated = f"correlated between {' and '.join(alike)}"
        parts = [f"standard deviation {self.std:.1f} of 255"]
        parts += [correlated if alike else "independent from pixel to pixel"]
        parts += ["JPEG blocks"] if self.blocks else []
        return ", ".join(parts)


def measure_noise(images: Tensor) -> FoundNoise:
    """Measure the noise of an image (C, H, W), or of several parts of one (N, C, H, W), float in 0..1.

    Alpha and further channels do not belong to it. Images smaller than a square are measured as a whole. The
    result of a picture without flat parts, such as one of gravel, is an upper bound.
    """
    images = images.reshape(-1, *images.shape[-3:]).float()
    distinct = images[:, :1] if bool(is_grey(images).all()) else images
    remainders, brightness = _remainders(distinct)
    squares = _flattest(remainders)
    variance = squares.square().mean()
    across = (squares[..., 1:] * squares[..., :-1]).mean()
    down = (squares[..., 1:, :] * squares[..., :-1, :]).mean()
    neighbours = float((across + down) / (2 * variance).clamp_min(1e-12))
    return FoundNoise(
        std=_medium_std(remainders, brightness) * 255,
        neighbours=min(1.0, max(0.0, neighbours)),
        channels=_between_channels(squares) if distinct.shape[1] > 1 else None,
        blocks=any(has_blocks(image.mean(0)) for image in distinct),
    )


def has_blocks(grey: Tensor) -> bool:
    """Whether steps between pixels (H, W) are larger at every 8th row and column, as in a JPEG's blocks."""
    found = 0.0
    for image in (grey, grey.T):
        steps = image.diff(dim=1).abs()
        whole = steps.shape[1] // _CELL * _CELL
        if whole < 8 * _CELL or steps.shape[0] < _CELL:
            return False
        largest = 3 * steps.flatten()[:: max(1, steps.numel() // _MOST_STEPS)].median()
        by_phase = steps.clamp_max(largest).mean(0)[:whole].reshape(-1, _CELL)  # edges count little
        excess = by_phase - (by_phase.sum(1, keepdim=True) - by_phase) / (_CELL - 1)
        error = excess.std(dim=0) / len(excess) ** 0.5
        found += float(
            (excess.mean(0) / error.clamp_min(1e-9)).max()
        )  # a part may begin in a block
    return found > _CLEAR


def _remainders(images: Tensor) -> tuple[Tensor, Tensor]:
    """The remainders of planes in squares, (N, C, SIDE, SIDE), and the squares' brightness, (N,)."""
    n, c, height, width = images.shape
    if min(height, width) < SIDE:
        return images - images.mean(dim=(2, 3), keepdim=True), images.mean(dim=(1, 2, 3))
    rows, columns = height // SIDE, width // SIDE
    squares = images[..., : rows * SIDE, : columns * SIDE].reshape(n, c, rows, SIDE, columns, SIDE)
    squares = squares.permute(0, 2, 4, 1, 3, 5).reshape(-1, c, SIDE, SIDE)
    squares = squares[:: -(-len(squares) // _MOST_SQUARES)]
    cut = ((squares <= 0) | (squares >= 1)).flatten(1).float().mean(1)
    whole = cut <= _MOST_CUT
    squares = squares[whole] if int(whole.sum()) >= _FEWEST else squares
    return _without_plane(squares), squares.mean(dim=(1, 2, 3))


def _flattest(remainders: Tensor) -> Tensor:
    """The squares with the smallest variance."""
    variances = remainders.square().mean(dim=(1, 2, 3))
    kept = max(min(_FEWEST, len(variances)), int(len(variances) * _KEPT))
    return remainders[variances.argsort()[:kept]]


def _medium_std(remainders: Tensor, brightness: Tensor) -> float:
    """The median over four parts of the squares, from dark to bright, of the deviation in the flattest."""
    parts = brightness.argsort().tensor_split(min(_PARTS, max(1, len(brightness) // _FEWEST)))
    found = [_flattest(remainders[part]).square().mean().sqrt() for part in parts]
    return float(torch.stack(found).median())


def _without_plane(squares: Tensor) -> Tensor:
    """Subtract from each square the plane of least squares through it."""
    slope = torch.linspace(-1, 1, SIDE)
    slope = slope / slope.norm() / SIDE**0.5
    remainders = squares - squares.mean(dim=(2, 3), keepdim=True)
    for plane in (
        slope.reshape(1, SIDE).expand(SIDE, SIDE),
        slope.reshape(SIDE, 1).expand(SIDE, SIDE),
    ):
        remainders = remainders - (remainders * plane).sum(dim=(2, 3), keepdim=True) * plane
    return remainders


def _between_channels(squares: Tensor) -> float:
    """The mean correlation of the pairs of neighbouring channels."""
    each = squares.square().mean(dim=(0, 2, 3)).sqrt()
    pairs = (squares[:, 1:] * squares[:, :-1]).mean(dim=(0, 2, 3)) / (
        each[1:] * each[:-1]
    ).clamp_min(1e-12)
    return float(pairs.mean())

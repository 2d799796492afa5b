"""Ranges: which numbers of a file are 0 and 1 for a model.

A model was trained on pictures from 0 (black) to 1 (white). The integers of usual pictures have the range of
their bits. Other files use a part of it (12 bits in 16), or floating-point numbers of any range, such as a
z-scored stack; then the numbers themselves, of all planes together, decide. The way back is the same line, so
the result has the unit and the offset of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_denoise.images import Levels

SHARE = 1e-4
"""This share of the numbers may lie below a range that is found from them, and as many above it."""

_PICTURE_BITS = 8
_LOWEST, _HIGHEST = -1.0, 2.0  # what a model sees; the rest is set apart, and added again
_NARROW = 8  # integers within an eighth of 0..their highest are no usual picture
_UNIT_FLOATS = (
    -0.5,
    0.25,
    1.5,
)  # numbers in 0..1 with noise: the least low, and the span of the high


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that become 0 and 1, and what to tell the user about them, if anything.

    If it is `bounded`, a model sees only what lies within -1..2 of it. In place of NaN, infinity, and numbers
    that float32 cannot hold, it sees the number `missing`, or black.

    >>> Range(100.0, 300.0).values(np.array([100, 200, 300], np.uint16))
    array([0. , 0.5, 1. ], dtype=float32)
    """

    low: float
    high: float
    note: str = ""
    bounded: bool = field(default=True, repr=False)
    missing: float | None = field(default=None, repr=False, compare=False)

    def values(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The numbers as a model takes them, float32."""
        wide = _wide(pixels.dtype)
        values = pixels.astype(wide)
        np.subtract(values, self.low, out=values)
        np.multiply(values, 1 / (self.high - self.low), out=values)
        found = as_float32(values)
        if pixels.dtype.kind == "f":
            shown = self.low if self.missing is None else self.missing
            found[~np.isfinite(found)] = (shown - self.low) / (self.high - self.low)
        return found

    def pixels(self, values: NDArray[np.float32], like: NDArray[Any]) -> NDArray[Any]:
        """Turn values back into the file's numbers, floating point, not rounded.

        Where the file has a number that a model cannot see, such as NaN, `like`, the result has it too.
        """
        wide = _wide(like.dtype)
        pixels = values.astype(wide)
        np.multiply(pixels, self.high - self.low, out=pixels)
        np.add(pixels, self.low, out=pixels)
        if like.dtype.kind == "f" and not (finite := np.isfinite(as_float32(like))).all():
            pixels[~finite] = like[~finite]
        return pixels


NUMBERS = Range(0.0, 1.0, bounded=False)
"""The numbers as they are, for a model that knows their range."""


def own_numbers(sample: NDArray[Any]) -> Range:
    """The numbers as they are, `sample` being some of them: in place of NaN, a model sees their median.

    >>> own_numbers(np.array([100, np.nan, 102, 900])).values(np.array([np.nan, 7]))
    array([102.,   7.], dtype=float32)
    """
    finite = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample[:0]
    return replace(NUMBERS, missing=float(np.median(finite))) if finite.size else NUMBERS


def split_extremes(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], Any]:
    """Split values into what a model sees, within -1..2, and the rest, which is added to its result.

    So a hot pixel or a star keeps its brightness, and does not disturb its surroundings.

    >>> split_extremes(np.array([0.5, 9.0], np.float32))
    (array([0.5, 2. ], dtype=float32), array([0., 7.], dtype=float32))
    """
    if values.size == 0 or (values.min() >= _LOWEST and values.max() <= _HIGHEST):
        return values, 0
    seen = values.clip(_LOWEST, _HIGHEST)
    return seen, values - seen


def is_known(levels: Levels) -> bool:
    """Whether the kind of number alone says the range, as with the 8 bits of usual pictures."""
    return levels.dtype.kind in ("b", "u") and levels.bits <= _PICTURE_BITS


def find_range(sample: NDArray[Any], levels: Levels) -> Range:
    """Decide on a range from some of a file's numbers, taken from all of its planes.

    Args:
        sample: numbers of any shape, in the dtype of the file; none are needed if `is_known`.
        levels: the kind of number that the file holds.

    >>> find_range(np.arange(4096, dtype=np.uint16), Levels(np.dtype(np.uint16), 16))
    Range(low=0.0, high=4095.0, note='uses 12 of 16 bits: white is 4,095')
    """
    if is_known(levels):
        return Range(0.0, float(levels.high))
    kind = sample.dtype.kind
    finite = sample[np.isfinite(sample)] if kind == "f" else sample.ravel()
    if not finite.size:
        return Range(0.0, 1.0, "has no finite numbers")
    if kind == "f":
        finite = finite.astype(np.float64, copy=False)
    low, middle, high = (float(x) for x in np.quantile(finite, (SHARE, 0.5, 1 - SHARE)))
    if kind == "f":
        least, smallest, largest = _UNIT_FLOATS
        if low >= least and smallest <= high <= largest:
            return Range(0.0, 1.0, missing=middle)
        return replace(_of_data(low, high), missing=middle)
    own = int(levels.high).bit_length()
    used = max(1, int(high)).bit_length()
    if low < 0 or 0 < high - low < high / _NARROW:
        return _of_data(low, high)
    if used >= own - 1:  # a dark picture is no picture of another range
        return Range(0.0, float(levels.high))
    top = 2**used - 1
    return Range(0.0, float(top), f"uses {used} of {levels.bits} bits: white is {top:,}")


def _of_data(low: float, high: float) -> Range:
    if low == high:
        return Range(low, low + 1.0)
    return Range(low, high, f"has numbers from {low:.4g} to {high:.4g}: these are black and white")


def as_float32(numbers: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers as float32; those that it cannot hold are infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32, copy=False)


def _wide(dtype: np.dtype[Any]) -> type[np.float32] | type[np.float64]:
    """float32, or float64 for numbers that it does not hold exactly."""
    exact = np.can_cast(dtype, np.float32)
    return np.float32 if exact else np.float64

"""Levels: which values of an image are black and white, that is 0 and 1 for a model.

Models are trained on images in 0..1, with noise of a certain strength in this unit. So an image needs levels
that its own values fill: a camera that writes 12 bits into 16 has its white at 4095, not at 65535.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from graphnet.errors import InputError

_DEPTHS = (8, 10, 12, 14, 16)  # bits of a sample, as cameras and microscopes write them
_DARKEST_WHITE, _BRIGHTEST_WHITE = (
    1 / 16,
    2.0,
)  # the highest value of floats in 0..1, noise included
_LOWEST_BLACK = -1.0  # the lowest value of floats in 0..1, noise included


@dataclass(frozen=True, slots=True)
class Levels:
    """The values of an image that are 0 and 1 for a model."""

    black: float
    white: float

    def to_unit(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Map pixels so that black becomes 0 and white 1.

        >>> Levels(0, 255).to_unit(np.array([0, 51, 255], np.uint8))
        array([0. , 0.2, 1. ], dtype=float32)
        """
        work = pixels.astype(_work_dtype(pixels.dtype))
        unit: NDArray[Any] = (work - self.black) / (self.white - self.black)
        return unit.astype(np.float32)

    def from_unit(self, values: NDArray[np.float32], dtype: DTypeLike) -> NDArray[Any]:
        """Map 0 back to black and 1 to white, as floats of a precision that keeps all values of `dtype`.

        >>> Levels(0, 255).from_unit(np.array([0, 0.5], np.float32), np.uint8)
        array([  0. , 127.5], dtype=float32)
        """
        work = values.astype(_work_dtype(np.dtype(dtype)))
        pixels: NDArray[Any] = work * (self.white - self.black) + self.black
        return pixels


def find_levels(dtype: DTypeLike, lowest: float, highest: float) -> Levels:
    """Decide on the levels of images of a dtype whose values lie between `lowest` and `highest`.

    - 8-bit unsigned integers: 0 and 255.
    - Other integers that are not negative: 0 and the largest value of 8, 10, 12, 14 or 16 bits that is not
      below `highest`; above 65535, of as many bits as `highest` needs.
    - Floating-point numbers that look like 0..1 with noise: 0 and 1.
    - Anything else, such as z-scores, counts in floats, and integers with negative values: `lowest` and
      `highest`.

    Raises InputError if the dtype holds no real numbers, or if a value is not finite.

    >>> find_levels("uint16", 0, 3900)
    Levels(black=0.0, white=4095.0)
    >>> find_levels("float32", -0.1, 1.2)
    Levels(black=0.0, white=1.0)
    >>> find_levels("int16", -1000, 2400)
    Levels(black=-1000.0, white=2400.0)
    """
    dtype = check_dtype(dtype)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InputError(
            "the image has values that are not finite (NaN or infinity), which a network would spread. "
            "Replace them first, for example with numpy.nan_to_num."
        )
    if dtype.kind in "iu" and lowest >= 0:
        return Levels(0.0, _white_of_integers(dtype, int(highest)))
    looks_normal = _DARKEST_WHITE <= highest <= _BRIGHTEST_WHITE and lowest >= _LOWEST_BLACK
    if dtype.kind == "f" and looks_normal:
        return Levels(0.0, 1.0)
    if highest <= lowest:  # one value only
        return Levels(float(lowest), float(lowest) + 1.0)
    return Levels(float(lowest), float(highest))


def given_levels(value_range: tuple[float, float]) -> Levels:
    """Return the levels that a user states. Raises InputError unless black is below white."""
    black, white = map(float, value_range)
    if not (math.isfinite(black) and math.isfinite(white) and black < white):
        raise InputError(
            f"value_range: expected two numbers, black and a larger white, found {value_range!r}."
        )
    return Levels(black, white)


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype if it holds integers or floating-point numbers, else raise InputError."""
    found = np.dtype(dtype)
    if found.kind == "b":
        raise InputError(
            "the image is of truth values (bool), which have no noise that a denoiser could remove. Give "
            "the grey values from which it was made, or convert it: image.astype('float32')."
        )
    if found.kind not in "iuf":
        raise InputError(
            f"expected an image of integers or floating-point numbers, found {found.name}. Convert it first."
        )
    return found


def as_dtype(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Convert floats to a dtype; for integers, round them and clip them to its range.

    >>> as_dtype(np.array([-3.0, 1.5, 300.0]), np.uint8)
    array([  0,   2, 255], dtype=uint8)
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # float64 has no 2^64 - 1: the next number below it is the largest that fits.
    top = np.nextafter(float(limits.max), 0) if limits.bits == 64 else float(limits.max)
    rounded: NDArray[Any] = np.clip(np.rint(values), float(limits.min), top)
    return rounded.astype(dtype)


def _white_of_integers(dtype: np.dtype[Any], highest: int) -> float:
    if dtype.itemsize == 1:
        return float(np.iinfo(dtype).max)
    depth = next((bits for bits in _DEPTHS if highest < 2**bits), highest.bit_length())
    return float(min(2**depth - 1, np.iinfo(dtype).max))


def _work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The narrowest float that holds all values of a dtype well enough to give them back."""
    exact = np.finfo(np.float32).nmant + 1  # bits of an integer
    narrow = dtype == np.float32 or (dtype.itemsize * 8 < exact)
    return np.dtype(np.float32 if narrow else np.float64)

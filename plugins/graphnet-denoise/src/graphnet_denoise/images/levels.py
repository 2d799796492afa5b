"""Levels: the numbers that a file can hold, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Levels:
    """The kind of number that one sample of a file is.

    Args:
        dtype: the type of the samples in memory, in the machine's byte order.
        bits: how many bits of it the file uses; 12 bits have the levels 0..4095 of a uint16.
        peak: the highest level, if the file states one that is lower than these bits allow; else 0.

    >>> Levels(np.dtype(np.uint16), 12).round(np.array([-3.0, 7.5, 5000.0]))
    array([   0,    8, 4095], dtype=uint16)
    >>> Levels(np.dtype(np.int8), 8).low
    -128
    """

    dtype: np.dtype[Any]
    bits: int
    peak: int = 0

    @classmethod
    def of(cls, dtype: np.dtype[Any]) -> Levels:
        """All levels of a type."""
        return cls(dtype.newbyteorder("="), dtype.itemsize * 8)

    @property
    def integers(self) -> bool:
        """Whether the samples are integers, not floating-point numbers."""
        return self.dtype.kind in "ui"

    @property
    def eight_bits(self) -> bool:
        """Whether the samples are integers of 8 bits or fewer."""
        return self.integers and self.bits <= 8

    @property
    def low(self) -> int | float:
        """The lowest level; minus infinity for floating point."""
        if not self.integers:
            return -float("inf")
        return -(2 ** (self.bits - 1)) if self.dtype.kind == "i" else 0

    @property
    def high(self) -> int | float:
        """The highest level; infinity for floating point."""
        if not self.integers:
            return float("inf")
        return self.peak or int(2 ** (self.bits - (self.dtype.kind == "i")) - 1)

    def round(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Round to the nearest level, and clip to the lowest and highest; NaN becomes 0 in integers."""
        if not self.integers:
            if self.dtype.itemsize < pixels.dtype.itemsize:  # float16 ends at 65504
                top = np.finfo(self.dtype).max
                finite = np.isfinite(pixels)
                pixels = np.where(finite, np.clip(pixels, -top, top), pixels)
            return np.asarray(pixels, self.dtype)
        if pixels.dtype.kind in "uib":
            if pixels.dtype == self.dtype and Levels.of(self.dtype) == self:
                return pixels.astype(self.dtype)
            return np.asarray(np.clip(pixels, self.low, self.high), self.dtype)
        exact = np.float32 if pixels.dtype.itemsize <= 4 and self.bits <= 16 else np.float64
        levels: NDArray[Any] = np.floor(np.add(pixels, 0.5, dtype=exact))
        levels = np.nan_to_num(levels, nan=0, posinf=np.inf, neginf=-np.inf)
        above, below = levels >= self.high, levels <= self.low
        inside = np.where(above | below, 0, levels).astype(self.dtype)
        inside[above], inside[below] = self.high, self.low
        return np.asarray(inside)

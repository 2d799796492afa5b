"""Layout: which axis of an array holds what, and where one region of one plane lies in it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet.errors import InputError

Samples = NDArray[Any]
"""(C, h, w): all samples of a region of one plane."""

Part = int | slice
_OUTER = "IQRTZSVWAB"  # letters for axes that nobody named


@dataclass(frozen=True, slots=True)
class Layout:
    """The axes of an image file and their sizes.

    Args:
        axes: one letter for each axis, such as "TCZYX". Y and X are the rows and columns; C, if there is one,
            counts the samples of a pixel. All other axes count planes.
        shape: the size of each axis.

    >>> layout = Layout("TCZYX", (5, 2, 7, 64, 48))
    >>> layout.planes, layout.samples, layout.height, layout.width
    (35, 2, 64, 48)
    >>> layout.place(8)    # the second time, the second slice
    {'T': 1, 'Z': 1}
    """

    axes: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        fits = len(self.axes) == len(self.shape) == len(set(self.axes))
        if not fits or not {"Y", "X"} <= set(self.axes):
            raise InputError(
                f"axes {self.axes!r}: expected Y, X and another letter for each further axis of the shape "
                f"{self.shape}"
            )
        if not all(isinstance(size, Integral) for size in self.shape) or min(self.shape) < 1:
            raise ValueError(f"its size is {self.shape}")

    def size(self, axis: str) -> int:
        """The size of an axis, 1 if there is none of that letter."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def height(self) -> int:
        """The number of rows of a plane."""
        return self.size("Y")

    @property
    def width(self) -> int:
        """The number of columns of a plane."""
        return self.size("X")

    @property
    def samples(self) -> int:
        """The number of samples of a pixel, the size of C."""
        return self.size("C")

    @property
    def outer(self) -> tuple[str, ...]:
        """The axes that count planes, in their order."""
        return tuple(axis for axis in self.axes if axis not in "CYX")

    @property
    def planes(self) -> int:
        """The number of planes (C, Y, X)."""
        return math.prod(self.size(axis) for axis in self.outer)

    def place(self, plane: int) -> dict[str, int]:
        """The position of a plane on each axis that counts planes."""
        if not 0 <= plane < self.planes:
            raise InputError(f"plane {plane}: expected a number from 0 to {self.planes - 1}")
        place: dict[str, int] = {}
        for axis in reversed(self.outer):
            plane, place[axis] = divmod(plane, self.size(axis))
        return {axis: place[axis] for axis in self.outer}

    def read(self, array: Any, plane: int, rows: slice, columns: slice) -> Samples:
        """Copy a region (C, h, w) out of an array of this layout, such as a memory-mapped file."""
        region = np.array(array[self._index(plane, rows, columns)])
        return region.transpose(self._order()) if "C" in self.axes else self._turned(region)[None]

    def write(self, array: Any, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        """Write a region (C, h, w) into an array of this layout."""
        inner = [axis for axis in self.axes if axis in "CYX"]
        region = samples if "C" in self.axes else samples[0]
        letters = "CYX" if "C" in self.axes else "YX"
        array[self._index(plane, rows, columns)] = region.transpose(
            [letters.index(axis) for axis in inner]
        )

    def _index(self, plane: int, rows: slice, columns: slice) -> tuple[Part, ...]:
        parts: dict[str, Part] = {**self.place(plane), "Y": rows, "X": columns, "C": slice(None)}
        return tuple(parts[axis] for axis in self.axes)

    def _order(self) -> list[int]:
        inner = [axis for axis in self.axes if axis in "CYX"]
        return [inner.index(axis) for axis in "CYX"]

    def _turned(self, region: Samples) -> Samples:
        return region if self.axes.index("Y") < self.axes.index("X") else region.T


def guessed(shape: tuple[int, ...], *, colours_last: bool = True) -> Layout:
    """The layout of an array of which only the shape is known.

    An axis of 1, 3 or 4 at the end, or of 1 or 3 before the last two, is taken for colours.

    >>> guessed((64, 48, 3)).axes, guessed((7, 3, 64, 48)).axes, guessed((7, 64, 48)).axes
    ('YXC', 'ICYX', 'IYX')
    """
    if len(shape) < 2:
        raise InputError(f"expected an array of two dimensions or more, found the shape {shape}")
    inner = "YX"
    if colours_last and len(shape) > 2 and shape[-1] in (1, 3, 4):
        inner = "YXC"
    elif len(shape) > 2 and shape[-3] in (1, 3):
        inner = "CYX"
    outer = len(shape) - len(inner)
    if outer > len(_OUTER):
        raise InputError(f"expected an array of at most 12 dimensions, found {len(shape)}")
    return Layout(_OUTER[:outer] + inner, shape)


def span(part: slice, size: int) -> tuple[int, int]:
    """The first and the past-the-last number of a slice without a step, over an axis of this size.

    >>> span(slice(2, None), 10), span(slice(-3, 99), 10)
    ((2, 10), (7, 10))
    """
    first, last, step = part.indices(size)
    if step != 1:
        raise InputError(f"expected a slice without a step, found one with step {step}")
    return first, max(first, last)


def bands(height: int, rows: int) -> Iterator[slice]:
    """Cut a plane into bands of this many rows; the last one may be lower.

    >>> [(band.start, band.stop) for band in bands(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))

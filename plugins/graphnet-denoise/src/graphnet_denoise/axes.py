"""Axes: which axes of an array span an image, which one holds its channels, and which count images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from graphnet.errors import InputError

LETTERS = "TCZIYXS"
_COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}  # the samples of a pixel, with alpha -> those that are colours


@dataclass(frozen=True, slots=True)
class Axes:
    """One letter for each axis of an array: T time, C channels, Z depth, I images, Y rows, X columns,
    S samples.

    I counts images of which nobody says how they belong together. S holds the samples of a colour: grey or
    red, green and blue, and perhaps alpha after them.
    """

    letters: str

    @classmethod
    def of(cls, letters: str | None, shape: Sequence[int]) -> Axes:
        """Check the letters for an array of this shape; None guesses them for one image.

        Raises InputError if they do not fit, or if nothing can be guessed.

        >>> Axes.of(None, (64, 48, 3)).letters
        'YXS'
        """
        shape = tuple(shape)
        if letters is None:
            return cls(_guess(shape))
        unknown = [letter for letter in letters if letter not in LETTERS]
        if unknown or len(set(letters)) != len(letters):
            raise InputError(
                f"axes: expected different letters of {', '.join(LETTERS)}, found {letters!r}. T is time, "
                f"C channels, Z depth, I images of any order, Y rows, X columns, S the samples of a colour."
            )
        if len(letters) != len(shape):
            raise InputError(
                f"axes: expected one letter for each of the {len(shape)} axes of {shape}, found {letters!r}."
            )
        if "Y" not in letters or "X" not in letters:
            raise InputError(f"axes: expected Y and X among them, found {letters!r}.")
        if "C" in letters and "S" in letters:
            raise InputError(
                f"axes: found C and S in {letters!r}. Denoise the colours of each channel one by one, as in "
                f"[denoise(one, axes={letters.replace('C', '')!r}) for one in channels]."
            )
        samples = shape[letters.index("S")] if "S" in letters else 1
        if samples not in _COLOURS:
            raise InputError(
                f"axes: the axis S has {samples} samples; expected 1 (grey) or 3 (red, green, blue), with or "
                f"without alpha. Write C for channels that are no colours."
            )
        if letters.endswith("YXC") and shape[-1] == 4:
            raise InputError(
                f"axes: the last axis of {shape} has 4 channels. Write {letters[:-1] + 'S'!r} if they are "
                f"red, green, blue and alpha. For 4 channels that are no colours, put them first: "
                f"numpy.moveaxis(array, -1, 0) with axes='C{letters[:-1]}'."
            )
        return cls(letters)

    @property
    def channels(self) -> int | None:
        """The position of the axis with channels or samples; None without one."""
        return next((self.letters.index(one) for one in "CS" if one in self.letters), None)

    def images(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of the array with the axes (..., C, Y, X); what is written into it is in the array.

        >>> import numpy as np
        >>> Axes("YXC").images(np.zeros((4, 5, 3))).shape
        (3, 4, 5)
        >>> Axes("TYX").images(np.zeros((2, 4, 5))).shape
        (2, 1, 4, 5)
        """
        last = [self.letters.index(letter) for letter in "YX"]
        found = self.channels
        inner = last if found is None else [found, *last]
        outer = [axis for axis in range(array.ndim) if axis not in inner]
        view = array.transpose(*outer, *inner)
        return view[..., None, :, :] if found is None else view

    def groups(self, count: int, wanted: int | None) -> list[slice]:
        """Return which of `count` channels a model denoises at once; alpha is in none of the groups.

        `wanted` is the number of channels that the model takes, None for any. Samples of a colour are one
        group. Channels are one group if the model takes as many, else each is an image of its own.

        >>> Axes("CYX").groups(2, 3)
        [slice(0, 1, None), slice(1, 2, None)]
        >>> Axes("YXS").groups(4, 3)
        [slice(0, 3, None)]
        """
        if "S" in self.letters:
            return [slice(0, _COLOURS[count])]
        if wanted in (None, count):
            return [slice(0, count)]
        return [slice(one, one + 1) for one in range(count)]


def _guess(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3 and shape[-1] in (3, 4):
        return "YXS"
    raise InputError(
        f"the axes of an array {shape} cannot be guessed. State them, one letter each, for example "
        f"axes='TYX' for a movie, 'ZYX' for a stack, 'TCZYX' for both with channels, 'CYX' or 'YXC' for "
        f"channels."
    )

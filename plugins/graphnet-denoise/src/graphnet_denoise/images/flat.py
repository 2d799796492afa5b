"""Flat files: one array without compression behind a header, which is read and written at any place."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphnet_denoise.images.disk import Pieces, Stretch, reserve, write_pieces
from graphnet_denoise.images.file import ImageFile, ImageSink
from graphnet_denoise.images.layout import Layout, Samples, bands
from graphnet_denoise.images.levels import Levels

_BAND = 32  # rows that are mapped at a time


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies in a file.

    Args:
        offset: the byte at which its memory begins.
        dtype: its type, in the file's byte order.
        shape: its shape.
        order: "C" if the last axis varies fastest, "F" if the first one does.
        strides: the bytes from one number to the next on each axis, if they are neither of these; the array
            then begins at `origin`, counted from `offset`.
    """

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"
    strides: tuple[int, ...] = ()
    origin: int = 0

    @property
    def size_bytes(self) -> int:
        """The bytes that it takes in the file."""
        if self.strides:
            steps = zip(self.shape, self.strides, strict=True)
            return self.origin + self.dtype.itemsize + sum((n - 1) * s for n, s in steps if s > 0)
        return math.prod(self.shape) * self.dtype.itemsize

    def mapped(self, path: Path, mode: Literal["r", "r+"]) -> NDArray[Any]:
        """Map it into memory. Forget it soon: what a process has mapped counts as its memory."""
        if not self.strides:
            return np.memmap(path, self.dtype, mode, self.offset, self.shape, self.order)
        memory = np.memmap(path, np.uint8, mode, self.offset, (self.size_bytes,))
        return np.ndarray(self.shape, self.dtype, memory, self.origin, self.strides)


def read_in_bands(rows: slice, read: Callable[[slice], Samples]) -> Samples:
    """Read a region (C, h, w) of a mapped file, a few rows at a time.

    `read` maps the file anew for each band. With each number that is read, Linux maps up to 64 KiB around it,
    so a narrow region of a wide image would take the memory of the whole rows.
    """
    region: Samples | None = None
    for band in bands(rows.stop - rows.start, _BAND):
        part = read(slice(rows.start + band.start, rows.start + band.stop))
        if region is None:
            region = np.empty((len(part), rows.stop - rows.start, part.shape[2]), part.dtype)
        region[:, band] = part
    assert region is not None
    return region


class FlatFile(ImageFile):
    """An open flat file; a subclass sets `place` too."""

    by_parts = True
    place: Place

    def check_size(self) -> None:
        """Raise ValueError if the file ends before its array does."""
        expected = self.place.offset + self.place.size_bytes
        found = self.path.stat().st_size
        if found < expected:
            raise ValueError(f"it has {found} bytes of {expected}")

    def _samples(self, plane: int, rows: slice, columns: slice) -> Samples:
        def read(band: slice) -> Samples:
            return self.layout.read(self.place.mapped(self.path, "r"), plane, band, columns)

        return self.from_stored(read_in_bands(rows, read))

    def from_stored(self, region: Samples) -> Samples:
        """Turn the stored numbers into levels; here they are the same."""
        return region.astype(self.dtype)

    def to_stored(self, samples: Samples) -> Samples:
        """Turn levels into the numbers that are stored."""
        return samples

    def head(self) -> Stretch:
        """The bytes before the array."""
        return Stretch(self.path, 0, self.place.offset)

    def tail(self) -> Stretch:
        """The bytes behind the array."""
        return Stretch.rest(self.path, self.place.offset + self.place.size_bytes)


class FlatSink(ImageSink):
    """A flat file that is being written: every region goes to its place at once.

    Args:
        target: the file to write.
        place: where its array lies.
        head: the bytes before the array, of which there are `place.offset`.
        tail: the bytes behind it.
        stored: turns levels into the numbers to store, if they differ.
    """

    def __init__(
        self,
        target: Path,
        source: ImageFile,
        layout: Layout,
        levels: Levels,
        *,
        place: Place,
        head: Pieces,
        tail: Pieces = (),
        stored: Callable[[Samples], Samples] | None = None,
    ) -> None:
        super().__init__(source, layout, levels)
        self.target = target
        self.place = place
        self._stored = stored
        with target.open("wb+") as file:
            write_pieces(file, head)
            reserve(file, place.offset + place.size_bytes)
            file.seek(0, os.SEEK_END)
            write_pieces(file, tail)

    def _put(self, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        if self._stored is not None:
            samples = self._stored(samples)
        array = self.place.mapped(self.target, "r+")
        self.layout.write(array, plane, rows, columns, samples)

    def _finish(self) -> None:
        pass

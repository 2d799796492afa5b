"""NumPy's .npy: an array of any number of axes and any numbers; its axes are guessed, or told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graphnet.errors import DataError, GraphnetError
from graphnet_denoise.images.faults import unsupported
from graphnet_denoise.images.file import ImageFile
from graphnet_denoise.images.flat import FlatFile, FlatSink, Place
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, guessed
from graphnet_denoise.images.levels import Levels

MAGIC = b"\x93NUMPY"


class NpyFile(FlatFile):
    """An open .npy file; a bool counts as an integer of 1 bit."""

    format = "npy"
    title = "a .npy array"

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {
                1: np.lib.format.read_array_header_1_0,
                2: np.lib.format.read_array_header_2_0,
            }.get(version[0])
            if read is None:
                raise unsupported(path, "version 1 or 2", f"version {version}", "Save it again.")
            shape, fortran, dtype = read(file)
            order: Literal["C", "F"] = "F" if fortran else "C"
            self.place = Place(file.tell(), dtype, shape, order)
        if dtype.kind not in "buif":
            raise unsupported(
                path, "an array of numbers", f"the type {dtype}", "Convert the array."
            )
        if len(shape) < 2 or 0 in shape:
            raise unsupported(path, "an image (Y, X) or more", f"the shape {shape}", "Reshape it.")
        self.check_size()
        self.levels = levels_of(dtype)
        self._lay_out(guessed(shape))

    def _lay_out(self, layout: Layout) -> None:
        self.layout = layout
        describe(self)

    def set_axes(self, axes: str) -> None:
        """Say what the axes are."""
        self._lay_out(told(self.path, axes, self.shape))


class Npy(Format):
    """Arrays in .npy files."""

    name = "npy"
    title = "a .npy array"
    suffixes = (".npy",)

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def open(self, path: Path) -> ImageFile:
        return NpyFile(path)

    def writes_parts(self, source: ImageFile) -> bool:
        return True

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> FlatSink:
        layout, levels = source.layout, source.levels
        if isinstance(source, NpyFile):
            head = source.head()
            return FlatSink(target, source, layout, levels, place=source.place, head=[head])
        buffer = io.BytesIO()
        description = np.lib.format.dtype_to_descr(levels.dtype)
        header = {"descr": description, "fortran_order": False, "shape": layout.shape}
        np.lib.format.write_array_header_1_0(buffer, header)
        place = Place(buffer.tell(), levels.dtype, layout.shape)
        return FlatSink(target, source, layout, levels, place=place, head=[buffer.getvalue()])


def levels_of(dtype: np.dtype[Any]) -> Levels:
    """The levels of an array of this type."""
    return Levels(np.dtype(np.uint8), 1) if dtype.kind == "b" else Levels.of(dtype)


def told(path: Path, axes: str, shape: tuple[int, ...]) -> Layout:
    """The layout for axes that a user gave; DataError if they do not fit."""
    try:
        return Layout(axes.upper(), shape)
    except GraphnetError as error:
        raise DataError(f"{path}: {error}") from error


def describe(source: ImageFile) -> None:
    """Set what the channels of an array are, of which only the axes are known."""
    layout = source.layout
    source.channels, source.alpha = layout.samples, False
    source.colour = "grey" if layout.samples == 1 else "independent"
    colours = source.levels.integers and layout.axes.endswith("YXC")
    if layout.samples == 3 or (layout.samples == 4 and colours):
        source.colour, source.channels, source.alpha = "rgb", 3, layout.samples == 4

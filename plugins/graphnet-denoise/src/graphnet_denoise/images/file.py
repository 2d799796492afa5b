"""An image file that is open for reading, and one that is being written."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from graphnet.errors import DataError, InputError
from graphnet_denoise.images.faults import check_memory, reading
from graphnet_denoise.images.layout import Layout, Samples, span
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import Metadata

Colour = Literal["grey", "rgb", "cmyk", "ycbcr", "lab", "independent"]
"""What the channels of a pixel are; "independent": no colours, such as the channels of a microscope."""

ALL = slice(None)


class ImageFile(ABC):
    """An image file whose header was read, and whose pixels are read when they are wanted.

    A subclass sets the attributes, and defines `samples`. Close the file, or use it in a `with` block.

    Attributes:
        path: where the file is.
        layout: its axes and shape, all samples of a pixel included.
        levels: the kind of number that a sample is.
        channels: how many samples of a pixel are picture; alpha and other extra samples follow them.
        colour: what the channels are.
        alpha: whether the first extra sample is alpha.
        metadata: ICC profile, EXIF data and more, as bytes.
    """

    format: ClassVar[str]
    """The name of the format, such as "tiff"."""
    title: ClassVar[str]
    """What messages call such a file, such as "a TIFF"."""
    by_parts: bool = False
    """Whether `read` reads only what is asked for; otherwise the first read decodes a whole plane."""

    path: Path
    layout: Layout
    levels: Levels
    channels: int
    colour: Colour
    alpha: bool = False
    metadata: Metadata = Metadata()

    @property
    def axes(self) -> str:
        """One letter for each axis of `shape`, such as "TCZYX"."""
        return self.layout.axes

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self.layout.shape

    @property
    def planes(self) -> int:
        """How many images (C, H, W) the file holds: the product of all axes but C, Y, X."""
        return self.layout.planes

    @property
    def height(self) -> int:
        """The number of rows, as stored."""
        return self.layout.height

    @property
    def width(self) -> int:
        """The number of columns, as stored."""
        return self.layout.width

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type of the samples that `read` returns, in the machine's byte order."""
        return self.levels.dtype

    @property
    def bits(self) -> int:
        """How many bits a sample has in the file: 1 to 64."""
        return self.levels.bits

    def read(self, plane: int = 0, rows: slice = ALL, columns: slice = ALL) -> Samples:
        """Read the channels of a region: (C, h, w), in the file's own numbers and dtype.

        Raises DataError, which names the file, if the file is damaged.
        """
        return self.read_samples(plane, rows, columns)[: self.channels]

    def read_extra(self, plane: int = 0, rows: slice = ALL, columns: slice = ALL) -> Samples:
        """Read what follows the channels in a region: (E, h, w); alpha is the first if `alpha` is true."""
        return self.read_samples(plane, rows, columns)[self.channels :]

    def read_samples(self, plane: int = 0, rows: slice = ALL, columns: slice = ALL) -> Samples:
        """Read all samples of a region: (C + E, h, w), the channels before alpha and other extra ones."""
        rows = slice(*span(rows, self.height))
        columns = slice(*span(columns, self.width))
        self.layout.place(plane)  # refuses a plane that there is not
        with reading(self.path, self.title):
            return self._samples(plane, rows, columns)

    @abstractmethod
    def _samples(self, plane: int, rows: slice, columns: slice) -> Samples:
        """All samples of a region; the slices have a start and a stop."""

    def set_axes(self, axes: str) -> None:
        """Say what the axes are, for a file that does not say it itself; DataError for another one."""
        if axes != self.axes:
            raise DataError(
                f"{self.path}: expected the axes {self.axes}, which the file states, found {axes}. Leave the "
                f"axes out."
            )

    def close(self) -> None:  # noqa: B027 - not every format holds something open
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class DecodedFile(ImageFile):
    """A file of one plane that is decoded as a whole, at the first read."""

    _decoded: Samples | None = None

    def _samples(self, plane: int, rows: slice, columns: slice) -> Samples:
        if self._decoded is None:
            check_memory(math.prod(self.shape) * self.dtype.itemsize, self.path)
            self._decoded = self._decode()
            if self._decoded.shape != (self.layout.samples, self.height, self.width):
                raise ValueError(f"its pixels are {self._decoded.shape}")
        return np.array(self._decoded[:, rows, columns])

    @abstractmethod
    def _decode(self) -> Samples:
        """All samples of the image: (C + E, H, W)."""

    def close(self) -> None:
        """Forget the pixels."""
        self._decoded = None


class ImageSink(ABC):
    """An image file that is being written: regions come in any order, each pixel once.

    Alpha and other extra samples are copied from the source.

    Args:
        source: the file whose pixels were changed.
        layout: the axes and the shape of the result, extra samples included.
        levels: the kind of number that the result holds. If both the source and the result hold integers, and
            of different numbers of bits, the pixels are scaled from black to white.
    """

    def __init__(self, source: ImageFile, layout: Layout, levels: Levels) -> None:
        self.source = source
        self.layout = layout
        self.levels = levels
        self._missing = layout.planes * layout.height * layout.width

    def write(self, plane: int, rows: slice, columns: slice, pixels: Samples) -> None:
        """Write the channels of a region, (C, h, w), in the source's own numbers.

        Floating-point numbers are rounded to the nearest level of the file, and clipped to its range.
        """
        rows = slice(*span(rows, self.layout.height))
        columns = slice(*span(columns, self.layout.width))
        expected = (self.source.channels, rows.stop - rows.start, columns.stop - columns.start)
        if pixels.shape != expected:
            raise InputError(f"expected pixels {expected} (C, h, w), found {pixels.shape}")
        samples = self._converted(pixels)
        extra = self.layout.samples - len(samples)
        if extra > 0:
            kept = self._converted(self.source.read_extra(plane, rows, columns)[:extra])
            samples = np.concatenate((samples, kept))
        self._put(plane, rows, columns, samples)
        self._missing -= expected[1] * expected[2]

    def finish(self) -> None:
        """Encode what was written; called once, after the last region."""
        if self._missing:
            raise InputError(
                f"the result has {self._missing} pixels that nobody wrote, or wrote twice"
            )
        self._finish()

    def close(self) -> None:  # noqa: B027 - not every format holds something open
        """Close the file, finished or not."""

    def _converted(self, samples: Samples) -> Samples:
        have, want = self.source.levels, self.levels
        if have.bits != want.bits and have.integers and want.integers:
            samples = samples * (float(want.high) / float(have.high))
        return want.round(samples)

    @abstractmethod
    def _put(self, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        """Store all samples of a region."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the file."""


class EncodedSink(ImageSink):
    """A result of one plane that stays in memory until it is encoded as a whole.

    Args:
        target: the file to write.
    """

    def __init__(self, target: Path, source: ImageFile, layout: Layout, levels: Levels) -> None:
        super().__init__(source, layout, levels)
        self.target = target
        # In the order of encoders: the samples of a pixel lie together.
        whole = np.zeros((layout.height, layout.width, layout.samples), levels.dtype)
        self._samples = whole.transpose(2, 0, 1)

    def _put(self, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        self._samples[:, rows, columns] = samples

    def _finish(self) -> None:
        self.target.write_bytes(self._encode(self._samples))

    def close(self) -> None:
        """Forget the pixels."""
        del self._samples

    @abstractmethod
    def _encode(self, samples: Samples) -> bytes:
        """Encode all samples, (C + E, H, W)."""

"""An open TIFF: which pages are its planes, and what their samples mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

from graphnet_denoise.images.families.tiff.directory import form_of
from graphnet_denoise.images.families.tiff.page import (
    Page,
    check_cover,
    read_plain,
    read_region,
    segment_bytes,
)
from graphnet_denoise.images.families.tiff.tags import metadata_of
from graphnet_denoise.images.faults import check_memory, unsupported
from graphnet_denoise.images.file import Colour, ImageFile
from graphnet_denoise.images.layout import Layout, Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import Metadata

_COLOURS: dict[int, tuple[Colour, int]] = {
    0: ("grey", 1),
    1: ("grey", 1),
    2: ("rgb", 3),
    3: ("rgb", 1),
    5: ("cmyk", 4),
    6: ("ycbcr", 3),
    8: ("lab", 3),
    9: ("lab", 3),
    34892: ("rgb", 3),
}
"""What the samples are by the tag PhotometricInterpretation, and how many of them are colours."""

_WHITE_IS_ZERO, _PALETTE, _YCBCR, _LINEAR_RAW = 0, 3, 6, 34892
_JPEG = 7
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_SPARE_LETTERS = "QIRTZSVWABDEFGHJKLMNOPU"
LARGE_SEGMENT_BYTES = 64 << 20
"""A page whose strips or tiles are larger is decoded once, as a whole, not anew for each region."""

_UNSAID = 0  # of ExtraSamples: the sample is no alpha


class TiffImage(ImageFile):
    """An open TIFF.

    Where 0 is white, levels are turned so that 0 is black. A palette becomes colours. Smaller copies of the
    image (thumbnails, the levels of a pyramid) and masks are left out.
    """

    format = "tiff"
    title = "a TIFF"

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.form = form_of(file)
            self.form.check_chain(file)
        self._checked: set[int] = set()  # pages that are known to be covered
        self._whole: dict[int, Samples] = {}  # the decoded pages of one plane, if they are kept
        self.tiff = tifffile.TiffFile(path, _multifile=False)
        self.tiff.filehandle.set_lock(True)  # several threads may read
        try:
            self._open()
        except BaseException:
            self.tiff.close()
            raise

    def _open(self) -> None:
        self.series = self._only_series()
        self.keyframe = self.series.keyframe
        self._check_kind()
        self.by_parts = segment_bytes(self.keyframe) <= LARGE_SEGMENT_BYTES
        separate, _, height, width, together = self.keyframe.shaped
        self.stored = separate * together
        self.planar = separate > 1
        self._count_channels()
        self._lay_out(height, width)
        self.levels = self._levels()
        with self.path.open("rb") as file:
            self.metadata = self._metadata(file)

    def _only_series(self) -> tifffile.TiffPageSeries:
        series = [
            one
            for one in self.tiff.series
            if not int(one.keyframe.subfiletype) & (_REDUCED | _MASK)
        ]
        if not series:
            series = list(self.tiff.series[:1])
        if not series:
            raise ValueError("it has no page")
        if len(series) > 1:
            raise self._unsupported(
                f"{len(series)} of different sizes or kinds", "Save each as a file."
            )
        return series[0]

    def _unsupported(self, found: str, remedy: str = "Convert the image.") -> Exception:
        return unsupported(self.path, "one image, or a stack of equal ones", found, remedy)

    def _check_kind(self) -> None:
        page = self.keyframe
        _, depth, _, _, _ = page.shaped
        if depth > 1:
            raise self._unsupported(
                f"a volume of {depth} slices in one page", "Save each slice as a page."
            )
        if page.photometric not in _COLOURS:
            raise self._unsupported(
                f"pixels of the kind {getattr(page.photometric, 'name', page.photometric)}"
            )
        if page.is_subsampled and page.compression != _JPEG:
            raise self._unsupported("colours of lower resolution than the brightness")
        if page.dtype is None or page.dtype.kind not in "buif":
            raise self._unsupported(
                f"samples of {page.bitspersample} bits (SampleFormat {page.sampleformat})"
            )
        if page.photometric == _PALETTE and page.colormap is None:
            raise ValueError("it has no palette")
        if 0 in page.shaped:
            raise ValueError("it has no pixels")
        if page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
            raise self._unsupported(f"the compression {page.compression}")

    def _count_channels(self) -> None:
        page = self.keyframe
        self.colour, colours = _COLOURS[page.photometric]
        if page.photometric in (_YCBCR, _LINEAR_RAW) and (
            page.compression == _JPEG or self.stored == 1
        ):
            self.colour, colours = ("rgb", 3) if self.stored >= 3 else ("grey", 1)
        kinds = tuple(int(kind) for kind in page.extrasamples)
        self.extra = self.stored - colours
        if self.extra < 0:
            raise ValueError(f"it has {self.stored} samples a pixel, {colours} expected")
        self.alpha = self.extra > 0 and bool(kinds) and kinds[0] != _UNSAID
        if self.colour == "grey" and self.extra and not self.alpha:
            self.colour, colours, self.extra = "independent", self.stored, 0
        self.channels = colours

    def _lay_out(self, height: int, width: int) -> None:
        series, page = self.series, self.keyframe
        inner = page.axes.replace("S", "C")
        outer = series.axes[: len(series.axes) - len(inner)]
        shape = series.shape[: len(outer)]
        if math.prod(shape) != len(series.pages) and series.dataoffset is None:
            raise ValueError(f"it has {len(series.pages)} of {math.prod(shape)} pages")
        self.page_axes = _different(outer, taken=inner)
        self.page_shape = tuple(shape)
        inner_shape: tuple[int, ...] = page.shape
        if page.photometric == _PALETTE:
            inner, inner_shape = f"{inner}C", (*inner_shape, 3)
            palette = page.colormap
            assert palette is not None
            self.palette = palette
            grey = bool((palette == palette[:1]).all())
            self.colour, self.channels = ("grey", 1) if grey else ("rgb", 3)
            if grey:
                inner, inner_shape = inner[:-1], inner_shape[:-1]
        self.layout = Layout(self.page_axes + inner, (*self.page_shape, *inner_shape))
        if "C" in self.page_axes:
            self.colour, self.channels = "independent", self.layout.samples

    def _levels(self) -> Levels:
        page = self.keyframe
        assert page.dtype is not None
        if page.photometric == _PALETTE:
            whole = not bool((self.palette % 257).any())  # colours of 8 bits, spread over 16
            return Levels.of(np.dtype(np.uint8 if whole else np.uint16))
        dtype = np.dtype(np.uint8) if page.dtype.kind == "b" else page.dtype.newbyteorder("=")
        return Levels(dtype, page.bitspersample if dtype.kind == "u" else dtype.itemsize * 8)

    def _metadata(self, file: BinaryIO) -> Metadata:
        try:
            return metadata_of(self.form.read(file, self.page(0).offset)[0], self.form)
        except Exception:  # odd metadata of good pixels
            return Metadata()

    def page_number(self, place: dict[str, int]) -> int:
        """The number of the page at a place on the axes that count pages."""
        number = 0
        for axis, size in zip(self.page_axes, self.page_shape, strict=True):
            number = number * size + place[axis]
        return number

    def pages_of(self, plane: int) -> list[int]:
        """The numbers of the pages that hold a plane: one, or one for each channel."""
        place = self.layout.place(plane)
        if "C" not in self.page_axes:
            return [self.page_number(place)]
        return [self.page_number({**place, "C": channel}) for channel in range(self.channels)]

    @property
    def page_count(self) -> int:
        """The number of pages."""
        return math.prod(self.page_shape)

    def page(self, number: int) -> Page:
        """A page by its number; the first one stands for all of a stack that has one directory."""
        pages = self.series.pages
        page = pages[number if len(pages) == self.page_count else 0]
        if page is None:
            raise ValueError(f"page {number} is missing")
        return page

    def _samples(self, plane: int, rows: slice, columns: slice) -> Samples:
        numbers = self.pages_of(plane)
        self._whole = {n: page for n, page in self._whole.items() if n in numbers}
        parts = [self._stored(number, rows, columns) for number in numbers]
        samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if samples.dtype != self.dtype:
            samples = samples.astype(self.dtype)
        return self.turned(samples)

    def _stored(self, number: int, rows: slice, columns: slice) -> Samples:
        """The samples of a region of a page, as stored, but for a palette."""
        if len(self.series.pages) != self.page_count:  # one directory, all pages behind one another
            assert self.series.dataoffset is not None
            offset = self.series.dataoffset + number * self.keyframe.nbytes
            return read_plain(self.tiff, offset, self.keyframe, rows, columns)
        page = self.page(number)
        if number not in self._checked:
            check_cover(page)
            self._checked.add(number)
        if self.by_parts:
            samples = read_region(page, rows, columns)
        else:
            samples = np.array(self._whole_page(page, number)[:, rows, columns])
        if self.keyframe.photometric != _PALETTE:
            return samples
        colours = self.palette[: self.channels, samples[0]]
        return colours >> 8 if self.levels.bits == 8 else colours

    def _whole_page(self, page: Page, number: int) -> Samples:
        """All samples of a page, as stored, which are decoded when they are wanted for the first time."""
        whole = self._whole.get(number)
        if whole is None:
            height, width = self.height, self.width
            check_memory(self.stored * height * width * self.dtype.itemsize, self.path)
            whole = self._whole[number] = read_region(page, slice(0, height), slice(0, width))
        return whole

    def turned(self, samples: Samples) -> Samples:
        """Turn levels where 0 is white, so that 0 is black; the same turns them back."""
        if self.keyframe.photometric == _WHITE_IS_ZERO and self.levels.dtype.kind == "u":
            return np.asarray(self.levels.high - samples, self.levels.dtype)
        return samples

    def close(self) -> None:
        """Close the file, and forget the pixels."""
        self._whole = {}
        self.tiff.close()


def _different(axes: str, *, taken: str) -> str:
    """Give each axis a letter of its own: the file's, if it is free.

    >>> _different("QQC", taken="YXC")
    'QIR'
    """
    letters = ""
    for axis in axes:
        spare = (letter for letter in _SPARE_LETTERS if letter not in axes + taken + letters)
        letters += axis if axis not in taken + letters else next(spare)
    return letters

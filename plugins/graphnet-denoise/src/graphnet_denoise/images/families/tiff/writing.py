"""A TIFF that is being written: stored as its source is, part by part."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from graphnet_denoise.images.disk import reserve
from graphnet_denoise.images.families.tiff.directory import (
    ASCII,
    Directory,
    Entry,
    Order,
    replace_directories,
)
from graphnet_denoise.images.families.tiff.reading import TiffImage
from graphnet_denoise.images.families.tiff.tags import STALE, STORAGE, directory_of
from graphnet_denoise.images.file import ImageFile, ImageSink
from graphnet_denoise.images.flat import Place
from graphnet_denoise.images.layout import Layout, Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.scratch import IN_MEMORY_BYTES, Scratch

CLASSIC_BYTES = 4_000_000_000
"""A TIFF of more bytes is written as BigTIFF, as its source must be one."""

WHOLE_PAGE_BYTES = IN_MEMORY_BYTES
"""A compressed page of strips that is larger becomes tiles, which can be written one by one."""

JPEG_QUALITY = 95
_TILE = (512, 512)
_DEFLATE, _JPEG, _JPEG2000 = 8, 7, (33003, 33004, 33005, 34712)
_LOSSY = (_JPEG, 50001, 34887)
_COMPRESSIONS = (
    *(5, _DEFLATE, _JPEG, 32773, 32946, 34887, 34925, 34926, 50000, 50001, 50002),
    *_JPEG2000,
)
"""Those that can be written; another one becomes deflate."""
_MAKERS = ("lsm", "stk", "mmstack", "ndtiff", "ndpi", "eer")
"""Kinds of TIFF with a maker's tags that tell where data lie in the file: nobody else writes such files."""

_DESCRIPTION = 270


@dataclass(frozen=True)
class Storage:
    """How the pages of a result are stored: options of tifffile's `write`, and the form of one page."""

    options: dict[str, Any]
    shape: tuple[int, int, int, int]
    """(separate samples, H, W, samples together)."""
    dtype: np.dtype[Any]
    bits: int
    pages: int
    order: Order
    big: bool
    like_source: bool = False
    """Whether the pages are those of a TIFF that is the source."""
    one_directory: bool = False
    """Whether one directory stands for all pages, whose pixels follow one another."""

    @property
    def page_bytes(self) -> int:
        """The bytes of the pixels of a page, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def direct(self) -> bool:
        """Whether pixels can be put into the file at once, at any place."""
        plain = not self.options.get("compression") and not self.options.get("tile")
        return plain and self.bits % 8 == 0

    @property
    def page_shape(self) -> tuple[int, ...]:
        """The shape of a page as tifffile takes it."""
        separate, height, width, together = self.shape
        if separate > 1:
            return separate, height, width
        return (height, width, together) if together > 1 else (height, width)


class TiffSink(ImageSink):
    """A TIFF that is being written.

    Uncompressed strips are put into the file at once. Everything else waits in a scratch array until the end.
    """

    def __init__(
        self,
        target: Path,
        source: ImageFile,
        layout: Layout,
        levels: Levels,
        storage: Storage,
        directories: list[Directory],
    ) -> None:
        super().__init__(source, layout, levels)
        self.target = target
        self.storage = storage
        self.directories = directories
        self._scratch: Scratch | None = None
        self._dtype = storage.dtype.newbyteorder(storage.order)
        self._shape = (storage.pages, *storage.shape)
        if storage.direct:
            self._place = self._write_empty_pages()
        else:
            self._scratch = Scratch(target.parent, self._shape, self._dtype)

    def _put(self, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        source = self.source
        if isinstance(source, TiffImage) and self.storage.like_source:
            samples = source.turned(samples)
            numbers = source.pages_of(plane)
        else:
            numbers = [plane]
        for number, part in zip(numbers, np.split(samples, len(numbers)), strict=True):
            separate, _, _, together = self.storage.shape
            region = part.reshape(separate, together, *part.shape[1:]).transpose(0, 2, 3, 1)
            if self._scratch is None:
                array = self._place.mapped(self.target, "r+")
                array[number, :, rows, columns] = region
            else:
                with self._scratch.opened() as array:
                    array[number, :, rows, columns] = region

    def _finish(self) -> None:
        if self._scratch is not None:
            self._write_pages()
        replace_directories(self.target, self.directories, keep=STORAGE)

    def _writer(self) -> tifffile.TiffWriter:
        storage = self.storage
        return tifffile.TiffWriter(
            self.target,
            bigtiff=storage.big,
            byteorder=storage.order,
            ome=False,
            imagej=False,
            shaped=False,
        )

    def _write_empty_pages(self) -> Place:
        """Write the directories of all pages, and leave room for their pixels."""
        storage = self.storage
        count = 1 if storage.one_directory else storage.pages
        with self._writer() as tiff:
            place = tiff.write(
                None,
                shape=(count, *storage.page_shape),
                dtype=self._dtype,
                metadata=None,
                software=False,
                returnoffset=True,
                **storage.options,
            )
        assert place is not None
        offset, _ = place
        with self.target.open("rb+") as file:
            reserve(file, offset + storage.page_bytes * storage.pages)
        return Place(offset, self._dtype, self._shape)

    def _write_pages(self) -> None:
        storage = self.storage
        with self._writer() as tiff:
            for number in range(storage.pages):
                tiff.write(
                    self._data(number),
                    shape=storage.page_shape,
                    dtype=np.dtype(bool) if storage.bits == 1 else self._dtype,
                    metadata=None,
                    software=False,
                    **storage.options,
                )

    def _data(self, number: int) -> Iterator[NDArray[Any]] | NDArray[Any]:
        assert self._scratch is not None
        if self.storage.options.get("tile"):
            return self._tiles(number)
        with self._scratch.opened() as array:
            page = np.array(array[number]).reshape(self.storage.page_shape)
        return page.astype(bool) if self.storage.bits == 1 else page

    def _tiles(self, number: int) -> Iterator[NDArray[Any]]:
        assert self._scratch is not None
        tall, wide = self.storage.options["tile"]
        separate, height, width, together = self.storage.shape
        for sample in range(separate):
            for top in range(0, height, tall):
                with self._scratch.opened() as array:
                    band = np.array(array[number, sample, top : top + tall])
                if band.shape[0] < tall:
                    band = np.pad(band, ((0, tall - len(band)), (0, 0), (0, 0)), "edge")
                for left in range(0, width, wide):
                    tile = band[:, left : left + wide]
                    if tile.shape[1] < wide:
                        tile = np.pad(tile, ((0, 0), (0, wide - tile.shape[1]), (0, 0)), "edge")
                    yield np.ascontiguousarray(tile if together > 1 else tile[..., 0])

    def close(self) -> None:
        """Delete the scratch array."""
        if self._scratch is not None:
            self._scratch.close()


def is_of_maker(source: TiffImage) -> bool:
    """Whether only the maker of a microscope or scanner can write such a TIFF."""
    return source.series.kind in _MAKERS


def like_tiff(target: Path, source: TiffImage) -> TiffSink:
    """Start a TIFF that is stored as its source is."""
    page = source.keyframe
    palette = page.photometric == 3
    separate, _, height, width, together = page.shaped
    shape = (separate, height, width, together)
    options: dict[str, Any] = {"photometric": int(page.photometric)}
    if palette:
        shape = (1, height, width, source.channels)
        options["photometric"] = "rgb" if source.channels == 3 else "minisblack"
    elif source.stored > 1:
        options["planarconfig"] = "separate" if separate > 1 else "contig"
        kinds = [int(kind) for kind in page.extrasamples]
        extra = source.stored - {1: 1}.get(int(page.photometric), source.stored - len(kinds))
        options["extrasamples"] = (kinds + [0] * extra)[:extra] or None
    if shape[3] > 1:
        options["planarconfig"] = "contig"
    bits = source.levels.bits
    if bits % 8 and bits > 1:
        options["bitspersample"] = bits
    _set_compression(options, source, math.prod(shape) * source.levels.dtype.itemsize)
    if page.is_tiled:
        options["tile"] = (page.tilelength, page.tilewidth)
    elif "tile" not in options:
        options["rowsperstrip"] = min(page.rowsperstrip, height)
    if int(page.subfiletype):
        options["subfiletype"] = int(page.subfiletype) & ~1
    count = source.page_count
    raw = count * math.prod(shape) * source.levels.dtype.itemsize
    big = source.tiff.is_bigtiff or raw > CLASSIC_BYTES
    one = len(source.series.pages) < count
    order = source.tiff.byteorder
    storage = Storage(options, shape, source.levels.dtype, bits, count, order, big, True, one)
    return TiffSink(target, source, source.layout, source.levels, storage, _kept(source))


def _set_compression(options: dict[str, Any], source: TiffImage, page_bytes: int) -> None:
    page = source.keyframe
    compression = int(page.compression)
    if compression == 1:
        return
    if compression not in _COMPRESSIONS or source.levels.bits % 8:
        compression = _DEFLATE
    if compression == _JPEG and not _fits_jpeg(source):
        compression = _DEFLATE
    if source.levels.bits % 8 and source.levels.bits > 1:
        return  # tifffile packs such samples without compression only
    options["compression"] = compression
    if compression == _JPEG:
        options["compressionargs"] = {"level": JPEG_QUALITY}
        if source.colour == "rgb":
            options["photometric"] = "rgb"
            options["subsampling"] = page.subsampling if page.photometric == 6 else (1, 1)
    predictor = int(page.predictor)
    if predictor in (2, 3) and compression not in _LOSSY:
        options["predictor"] = predictor
    if not page.is_tiled and page_bytes > WHOLE_PAGE_BYTES:
        options["tile"] = _TILE


def _fits_jpeg(source: TiffImage) -> bool:
    """Whether JPEG can hold the pixels of a page: 8 bits, colours together and nothing beside them."""
    plain = source.stored == source.channels and source.levels.bits == 8 and not source.planar
    return plain and source.colour in ("grey", "rgb", "cmyk")


def _kept(source: TiffImage) -> list[Directory]:
    """The entries of each page that say something of the pixels, as they are in the source."""
    directories: list[Directory] = []
    with source.path.open("rb") as file:
        for number in range(len(source.series.pages)):
            directory = source.form.read(file, source.page(number).offset)[0]
            directories.append(directory.without(STORAGE | STALE))
    return directories


def from_other(target: Path, source: ImageFile) -> TiffSink:
    """Start a TIFF for an image of another format: deflated, or in parts if it is large."""
    samples = source.channels + source.alpha
    height, width = source.height, source.width
    colours = {"rgb": "rgb", "cmyk": "separated"}
    photometric = colours.get(source.colour, "minisblack")
    options: dict[str, Any] = {"photometric": photometric, "compression": _DEFLATE}
    levels = source.levels
    if levels.integers and levels.bits % 8:
        levels = Levels.of(levels.dtype)
    if samples > 1:
        options["planarconfig"] = "contig"
        colour = {"rgb": 3, "separated": 4}.get(photometric, 1)
        options["extrasamples"] = [2 if source.alpha else 0] * (samples - colour) or None
    if levels.dtype.itemsize <= 4:
        options["predictor"] = 2 if levels.integers else 3
    raw = source.planes * samples * height * width * levels.dtype.itemsize
    if samples * height * width * levels.dtype.itemsize > WHOLE_PAGE_BYTES:
        options["tile"] = _TILE
    axes = source.layout.outer
    layout = Layout(
        "".join(axes) + ("YXC" if samples > 1 else "YX"),
        (*(source.layout.size(axis) for axis in axes), height, width, *([samples] * (samples > 1))),
    )
    directory, form = directory_of(source.metadata)
    if axes:
        text = json.dumps({"shape": layout.shape, "axes": layout.axes.replace("C", "S")}).encode()
        entry = Entry(ASCII, len(text) + 1, text + b"\0")
        directory = Directory({_DESCRIPTION: entry}).joined(directory)
    storage = Storage(
        options,
        (1, height, width, samples),
        levels.dtype,
        levels.bits,
        source.planes,
        form.order,
        raw > CLASSIC_BYTES,
    )
    rest = [Directory()] * (source.planes - 1)
    return TiffSink(target, source, layout, levels, storage, [directory, *rest])

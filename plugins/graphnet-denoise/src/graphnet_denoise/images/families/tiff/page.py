"""The pixels of one page of a TIFF: a region is read from the strips or tiles that it touches."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ImageFile as PillowFile
from PIL import Jpeg2KImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from graphnet_denoise.images.flat import Place, read_in_bands
from graphnet_denoise.images.layout import Samples

Page = tifffile.TiffPage | tifffile.TiffFrame
_JPEG = (6, 7, 34892, 33007)  # the codes of JPEG compressions, whose segments share tables
_PICTURES: dict[int, type[PillowFile.ImageFile]] = {
    **dict.fromkeys(_JPEG, JpegImagePlugin.JpegImageFile),
    **dict.fromkeys((33003, 33004, 33005, 34712), Jpeg2KImagePlugin.Jpeg2KImageFile),
    **dict.fromkeys((34927, 50001), WebPImagePlugin.WebPImageFile),
    34933: PngImagePlugin.PngImageFile,
}
"""The codes of compressions whose segments state a size of their own, and what reads it."""
_MOST_TIMES = 4  # the last strip may be a whole one


def segment_bytes(keyframe: tifffile.TiffPage) -> int:
    """The bytes of a decoded strip or tile; 0 if pixels can be read from the file without decoding."""
    if _is_plain(keyframe):
        return 0
    _, _, height, width, together = keyframe.shaped
    if keyframe.is_tiled:
        height, width = keyframe.tilelength, keyframe.tilewidth
    else:
        height = min(keyframe.rowsperstrip, height)
    return height * width * together * (keyframe.dtype or np.dtype(np.uint8)).itemsize


def _is_plain(keyframe: tifffile.TiffPage) -> bool:
    """Whether the pixels of a page follow one another in the file, as whole bytes."""
    return keyframe.is_final and keyframe.dtype is not None and keyframe.bitspersample >= 8


def check_cover(page: Page) -> None:
    """Raise ValueError if the strips or tiles do not cover the page, or lie outside the file."""
    expected = math.prod(page.chunked)
    found = sum(
        1
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False)
        if offset and size
    )
    what = "tiles" if page.keyframe is not None and page.keyframe.is_tiled else "strips"
    if found < expected:
        raise ValueError(f"it has {found} of the {expected} {what} that cover it")
    end = page.parent.filehandle.size
    ends = (a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False))
    if max(ends) > end:
        raise ValueError(f"its {what} end behind the file's {end} bytes")


def read_region(page: Page, rows: slice, columns: slice) -> Samples:
    """Read all stored samples of a region: (S, h, w) in the machine's byte order."""
    keyframe = page.keyframe
    assert keyframe is not None
    separate, _, _, _, together = keyframe.shaped
    samples = separate * together
    if _is_plain(keyframe):
        return read_plain(page.parent, page.dataoffsets[0], keyframe, rows, columns)
    region = np.zeros(
        (separate, rows.stop - rows.start, columns.stop - columns.start, together), keyframe.dtype
    )
    _paste_segments(page, keyframe, rows, columns, region)
    return region.transpose(0, 3, 1, 2).reshape(samples, *region.shape[1:3])


def read_plain(
    file: tifffile.TiffFile, offset: int, keyframe: tifffile.TiffPage, rows: slice, columns: slice
) -> Samples:
    """Read a region of uncompressed pixels, (S, h, w), in their own byte order, without decoding."""
    assert keyframe.dtype is not None
    place = Place(offset, keyframe.dtype.newbyteorder(file.byteorder), keyframe.shaped)

    def read(band: slice) -> Samples:
        array = place.mapped(Path(file.filehandle.path), "r")
        region = np.array(array[:, 0, band, columns, :]).transpose(0, 3, 1, 2)
        return region.reshape(-1, *region.shape[2:])

    return read_in_bands(rows, read)


def _paste_segments(
    page: Page, keyframe: tifffile.TiffPage, rows: slice, columns: slice, region: NDArray[Any]
) -> None:
    """Decode the strips or tiles that touch the region, one after the other, into `region` (S, h, w, s)."""
    handle = page.parent.filehandle
    options: dict[str, Any] = {"_fullsize": False}
    if keyframe.compression in _JPEG:
        options |= {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    wanted = _touching(keyframe, rows, columns)
    segments = handle.read_segments(
        [page.dataoffsets[i] for i in wanted], [page.databytecounts[i] for i in wanted], wanted
    )
    for data, index in segments:
        assert isinstance(index, int)
        assert not isinstance(data, tuple)  # segments come one by one
        _check_picture(data, keyframe, index)
        decoded, (separate, _, top, left, _), shape = keyframe.decode(data, index, **options)
        if decoded is None:
            raise ValueError(f"strip or tile {index} is empty")
        _, tall, wide, _ = shape
        top_in, left_in = max(rows.start, top), max(columns.start, left)
        end, right = min(rows.stop, top + tall), min(columns.stop, left + wide)
        part = decoded[0, top_in - top : end - top, left_in - left : right - left]
        region[
            separate,
            top_in - rows.start : end - rows.start,
            left_in - columns.start : right - columns.start,
        ] = part


def _check_picture(data: bytes | None, keyframe: tifffile.TiffPage, index: int) -> None:
    """Raise ValueError if a strip or tile is a picture of its own that states far too many pixels."""
    kind = _PICTURES.get(keyframe.compression)
    if kind is None or not data:
        return
    try:
        width, height = kind(io.BytesIO((keyframe.jpegheader or b"") + data)).size
    except (OSError, SyntaxError, ValueError):
        return  # the decoder reports the fault
    tall, wide = _segment_size(keyframe)
    if width * height > _MOST_TIMES * tall * wide:
        raise ValueError(
            f"strip or tile {index} holds {width} x {height} pixels, expected {wide} x {tall}"
        )


def _segment_size(keyframe: tifffile.TiffPage) -> tuple[int, int]:
    """The height and width of a strip or tile."""
    _, _, height, width, _ = keyframe.shaped
    if keyframe.is_tiled:
        return keyframe.tilelength, keyframe.tilewidth
    return min(keyframe.rowsperstrip, height), width


def _touching(keyframe: tifffile.TiffPage, rows: slice, columns: slice) -> list[int]:
    """The numbers of the strips or tiles that a region touches."""
    separate, _, height, width, _ = keyframe.shaped
    tall, wide = _segment_size(keyframe)
    down, across = math.ceil(height / tall), math.ceil(width / wide)
    return [
        (plane * down + row) * across + column
        for plane in range(separate)
        for row in range(rows.start // tall, math.ceil(rows.stop / tall))
        for column in range(columns.start // wide, math.ceil(columns.stop / wide))
    ]

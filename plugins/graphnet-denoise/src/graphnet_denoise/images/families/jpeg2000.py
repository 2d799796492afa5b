"""JPEG 2000: 1 to 16 bits, grey, colour and alpha; the boxes around the pixels are kept as they are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np

from graphnet_denoise.images.families.depths import refuse, shape_for, together
from graphnet_denoise.images.faults import unsupported
from graphnet_denoise.images.file import DecodedFile, EncodedSink, ImageFile
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import Metadata

PSNR = 60
"""The quality of a lossy file, in decibels: the format does not say with which one a file was written."""

_MAGIC = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
_SIZ, _COD, _SOT = 0xFF51, 0xFF52, 0xFF90
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF = b"JpgTiffExif->JP2"
_SYCC = 18  # an enumerated colour space


class Box(NamedTuple):
    """A box: its kind and its content."""

    kind: bytes
    data: bytes

    def encoded(self) -> bytes:
        """The bytes of the box in a file."""
        if len(self.data) + 8 > 0xFFFFFFFF:
            return struct.pack(">I4sQ", 1, self.kind, len(self.data) + 16) + self.data
        return struct.pack(">I4s", len(self.data) + 8, self.kind) + self.data


class Jpeg2000File(DecodedFile):
    """An open JPEG 2000, in boxes (.jp2) or without them (.j2k)."""

    format = "jpeg2000"
    title = "a JPEG 2000"

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self.boxes = [] if data.startswith(_CODESTREAM) else list(_boxes(data))
        self.stream = data if not self.boxes else self._find(b"jp2c") or b""
        if not self.stream:
            raise ValueError("it has no codestream")
        self._read_header()
        self.metadata = self._metadata()

    def _find(self, kind: bytes) -> bytes | None:
        return next((box.data for box in self.boxes if box.kind == kind), None)

    def _read_header(self) -> None:
        segments = dict(_segments(self.stream))
        sizes = segments[_SIZ]
        right, bottom, left, top = struct.unpack_from(">IIII", sizes, 2)
        (count,) = struct.unpack_from(">H", sizes, 34)
        parts = [sizes[36 + 3 * i : 39 + 3 * i] for i in range(count)]
        depths = {part[0] for part in parts}
        bits = (sizes[36] & 0x7F) + 1
        found = ""
        if len(depths) != 1 or sizes[36] & 0x80 or bits > 16:
            found = "signed samples, samples of different bits, or more than 16 bits"
        elif any(part[1:] != b"\1\1" for part in parts):
            found = "colours of lower resolution than the brightness"
        elif count > 4 or self._colour_space() == _SYCC or self._has_palette():
            found = "a palette, sYCC colours or more than four channels"
        if found:
            expected = "a JPEG 2000 of 1 to 16 bits, grey or RGB"
            raise unsupported(self.path, expected, found, "Convert it to a TIFF.")
        self.channels = 3 if count >= 3 else 1
        self.colour = "rgb" if self.channels == 3 else "grey"
        self.alpha = count in (2, 4)
        self.levels = Levels(np.dtype(np.uint8 if bits <= 8 else np.uint16), bits)
        self.layout = shape_for(bottom - top, right - left, count)
        self.reversible = segments[_COD][9] == 1

    def _header_boxes(self) -> list[Box]:
        return list(_boxes(self._find(b"jp2h") or b""))

    def _colour_space(self) -> int:
        colour = next((box.data for box in self._header_boxes() if box.kind == b"colr"), b"")
        if colour[:1] != b"\1" or len(colour) < 7:
            return 0
        return int(struct.unpack_from(">I", colour, 3)[0])

    def _has_palette(self) -> bool:
        return any(box.kind == b"pclr" for box in self._header_boxes())

    def _metadata(self) -> Metadata:
        icc = exif = xmp = None
        for box in (*self._header_boxes(), *self.boxes):
            if box.kind == b"colr" and box.data[:1] == b"\2":
                icc = box.data[3:]
            elif box.kind == b"uuid" and box.data.startswith(_XMP):
                xmp = box.data[16:]
            elif box.kind == b"uuid" and box.data.startswith(_EXIF):
                exif = box.data[16:].removeprefix(b"Exif\0\0")
        return Metadata(icc, exif, xmp)

    def _decode(self) -> Samples:
        array = imagecodecs.jpeg2k_decode(self.stream)
        return array.reshape(self.height, self.width, -1).transpose(2, 0, 1)


class Jpeg2000Sink(EncodedSink):
    """A JPEG 2000 that is being written."""

    boxed: bool

    def _encode(self, samples: Samples) -> bytes:
        source = self.source
        reversible = source.reversible if isinstance(source, Jpeg2000File) else True
        encoded = imagecodecs.jpeg2k_encode(
            together(samples),
            level=None if reversible else PSNR,
            codecformat="jp2" if self.boxed else "j2k",
            bitspersample=self.levels.bits,
            reversible=reversible,
            resolutions=_resolutions(source.height, source.width),
        )
        if not self.boxed:
            return bytes(encoded)
        boxes = list(_boxes(bytes(encoded)))
        if isinstance(source, Jpeg2000File) and source.boxes:
            stream = next(box for box in boxes if box.kind == b"jp2c")
            boxes = [stream if box.kind == b"jp2c" else box for box in source.boxes]
        else:
            boxes += _described(source.metadata)
        return b"".join(box.encoded() for box in boxes)


class Jpeg2000(Format):
    """JPEG 2000 files."""

    name = "jpeg2000"
    title = "a JPEG 2000"
    suffixes = (".jp2", ".j2k", ".jpx", ".j2c")

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith((_MAGIC, _CODESTREAM))

    def open(self, path: Path) -> ImageFile:
        return Jpeg2000File(path)

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> Jpeg2000Sink:
        refuse(name, self.title, source, colours=("grey", "rgb"))
        layout: Layout = shape_for(source.height, source.width, source.channels + source.alpha)
        sink = Jpeg2000Sink(target, source, layout, source.levels)
        sink.boxed = name.suffix.lower() in (".jp2", ".jpx")
        return sink


def _boxes(data: bytes) -> Iterator[Box]:
    place = 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if length == 0 else place + length
        if end < start:
            raise ValueError(f"a box of {length} bytes")
        yield Box(kind, data[start:end])
        place = end


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The segments of the codestream's main header: marker and data."""
    place = 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, place)
        if marker == _SOT:
            return
        yield marker, stream[place + 4 : place + 2 + length]
        place += 2 + length


def _resolutions(height: int, width: int) -> int:
    """How many times an image can be halved, at most 5, and one more."""
    return min(6, max(1, min(height, width).bit_length()))


def _described(metadata: Metadata) -> Iterator[Box]:
    """Boxes for the metadata of a file of another format."""
    if metadata.exif:
        yield Box(b"uuid", _EXIF + metadata.exif)
    if metadata.xmp:
        yield Box(b"uuid", _XMP + metadata.xmp)

"""JPEG: the quantisation tables, the subsampling and all segments beside the pixels are kept."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, JpegImagePlugin

from graphnet_denoise.images.families.depths import refuse, shape_for, together
from graphnet_denoise.images.faults import unsupported
from graphnet_denoise.images.file import Colour, DecodedFile, EncodedSink, ImageFile
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import Metadata

QUALITY = 95
"""The quality of a JPEG whose source is of another format."""

_SOI, _EOI, _SOS, _DQT = 0xD8, 0xD9, 0xDA, 0xDB
_JFIF, _APP1, _APP2, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_LOSSLESS = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF}  # and differential frames
_EXIF, _XMP, _ICC, _PREVIEWS = (
    b"Exif\0\0",
    b"http://ns.adobe.com/xap/1.0/\0",
    b"ICC_PROFILE\0",
    b"MPF\0",
)
_LARGEST_RATIO = (
    16_384  # pixels of a byte: a block of 8 x 8 takes a bit, or less with arithmetic coding
)
_SEGMENT = 65533  # the most bytes of a segment
_CENTIMETRE = 2.54  # inches


class Segment(NamedTuple):
    """A segment of a JPEG: its marker and its data."""

    marker: int
    data: bytes

    def encoded(self) -> bytes:
        """The bytes of the segment in a file."""
        return struct.pack(">BBH", 0xFF, self.marker, len(self.data) + 2) + self.data


class JpegFile(DecodedFile):
    """An open JPEG; the pictures that some cameras store behind the first one are left out."""

    format = "jpeg"
    title = "a JPEG"

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.segments = list(_segments(file))
            self._check_frame()
            file.seek(0)
            # Not by Image.open, which refuses large images and takes a JPEG with previews for a film.
            image = JpegImagePlugin.JpegImageFile(file)
        self.progressive = "progressive" in image.info
        self.tables = image.quantization
        self.keeps_rgb = False
        colours: dict[str, tuple[Colour, int]] = {
            "L": ("grey", 1),
            "RGB": ("rgb", 3),
            "CMYK": ("cmyk", 4),
        }
        self.colour, self.channels = colours[image.mode]
        if self.channels == 3:
            identifiers = bytes(layer[0] for layer in image.layer)
            self.keeps_rgb = identifiers == b"RGB" or image.info.get("adobe_transform") == 0
        self.subsampling = JpegImagePlugin.get_sampling(image)
        self.levels = Levels(np.dtype(np.uint8), 8)
        self.layout = shape_for(image.height, image.width, self.channels)
        self.metadata = _metadata(self.segments)

    def _check_frame(self) -> None:
        frame = next((segment for segment in self.segments if segment.marker in _FRAMES), None)
        if frame is None:
            raise ValueError("it has no frame")
        bits = frame.data[0]
        found = f"{bits} bits" if bits != 8 else "lossless or differential coding"
        if bits == 12 or frame.marker in _LOSSLESS:
            raise unsupported(
                self.path,
                "a JPEG of 8 bits, baseline or progressive",
                found,
                "Convert it to a TIFF.",
            )

    def _decode(self) -> Samples:
        if self.height * self.width > self.path.stat().st_size * _LARGEST_RATIO:
            raise ValueError(f"too few bytes for {self.width} x {self.height} pixels")
        with self.path.open("rb") as file:
            image = JpegImagePlugin.JpegImageFile(file)
            image.load()
            array = np.asarray(image).reshape(self.height, self.width, -1)
        return array.transpose(2, 0, 1)


class JpegSink(EncodedSink):
    """A JPEG that is being written."""

    def _encode(self, samples: Samples) -> bytes:
        source = self.source
        options: dict[str, Any] = {"quality": QUALITY, "subsampling": 0}
        kept = list(_described(source.metadata))
        if isinstance(source, JpegFile):
            options = {
                "qtables": source.tables,
                "progressive": source.progressive,
                "keep_rgb": source.keeps_rgb,
                "optimize": True,  # few cameras write the standard Huffman tables, and optimal ones fit all
            }
            if source.channels == 3:
                options["subsampling"] = max(source.subsampling, 0)
            kept = _kept(source.segments)
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(samples)]
        image = Image.fromarray(together(samples), mode)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
        return _joined(buffer.getvalue(), kept)


class Jpeg(Format):
    """JPEG files."""

    name = "jpeg"
    title = "a JPEG"
    suffixes = (".jpg", ".jpeg", ".jpe", ".jfif")

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"\xff\xd8\xff")

    def open(self, path: Path) -> ImageFile:
        return JpegFile(path)

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> JpegSink:
        refuse(
            name,
            self.title,
            source,
            colours=("grey", "rgb", "cmyk"),
            alpha=False,
            side=65500,
        )
        layout: Layout = shape_for(source.height, source.width, source.channels)
        return JpegSink(target, source, layout, Levels(np.dtype(np.uint8), 8))


def _segments(file: BinaryIO) -> Iterator[Segment]:
    """The segments before the pixels, the first scan's header included."""
    file.seek(2)
    while byte := file.read(1):
        if byte != b"\xff":
            continue  # some writers leave bytes between segments
        while (marker := file.read(1)) == b"\xff":
            pass
        if not marker or marker[0] in (0x00, 0x01) or 0xD0 <= marker[0] <= _EOI:
            continue  # without data
        (length,) = struct.unpack(">H", file.read(2))
        yield Segment(marker[0], file.read(max(length - 2, 0)))
        if marker[0] == _SOS:
            return


def _is_about(segment: Segment) -> bool:
    """Whether a segment tells something beside the pixels: APP0 to APP15 and comments."""
    return 0xE0 <= segment.marker <= 0xEF or segment.marker == _COMMENT


def _kept(segments: list[Segment]) -> list[Segment]:
    """The segments that stay true when the pixels change; a list of previews that were left out does not."""
    return [
        segment
        for segment in segments
        if _is_about(segment)
        and not (segment.marker == _APP2 and segment.data.startswith(_PREVIEWS))
    ]


def _joined(encoded: bytes, kept: list[Segment]) -> bytes:
    """Put the kept segments in place of the encoder's own."""
    own = [segment for segment in _segments(io.BytesIO(encoded)) if _is_about(segment)]
    pixels = encoded[2 + sum(len(segment.encoded()) for segment in own) :]
    adobe = [segment for segment in own if segment.marker == _ADOBE]
    if adobe:  # it tells how the encoder stored the colours
        kept = [segment for segment in kept if segment.marker != _ADOBE] + adobe
    elif not kept:
        kept = own
    return encoded[:2] + b"".join(segment.encoded() for segment in kept) + pixels


def _metadata(segments: list[Segment]) -> Metadata:
    profile: dict[int, bytes] = {}
    exif = xmp = resolution = None
    text: dict[str, str] = {}
    for marker, data in segments:
        if marker == _APP1 and data.startswith(_EXIF) and exif is None:
            exif = data[len(_EXIF) :]
        elif marker == _APP1 and data.startswith(_XMP) and xmp is None:
            xmp = data[len(_XMP) :]
        elif marker == _APP2 and data.startswith(_ICC) and len(data) > len(_ICC) + 2:
            profile[data[len(_ICC)]] = data[len(_ICC) + 2 :]
        elif marker == _JFIF and data.startswith(b"JFIF\0") and len(data) >= 12:
            unit, x, y = struct.unpack_from(">BHH", data, 7)
            scale = {1: 1.0, 2: _CENTIMETRE}.get(unit)
            resolution = (x * scale, y * scale) if scale and x and y else None
        elif marker == _COMMENT:
            text["Comment"] = data.decode("utf-8", "replace")
    icc = b"".join(profile[number] for number in sorted(profile)) or None
    return Metadata(icc, exif, xmp, resolution, text)


def _described(metadata: Metadata) -> Iterator[Segment]:
    """Segments for the metadata of a file of another format, as far as one segment can hold each."""
    resolution = metadata.resolution_times(1, most=65535)
    unit, x, y = (1, *resolution) if resolution else (0, 1, 1)
    yield Segment(_JFIF, b"JFIF\0\1\1" + struct.pack(">BHHBB", unit, x, y, 0, 0))
    for start, data in ((_EXIF, metadata.exif), (_XMP, metadata.xmp)):
        if data and len(start) + len(data) <= _SEGMENT:
            yield Segment(_APP1, start + data)
    if metadata.icc:
        size = _SEGMENT - len(_ICC) - 2
        parts = [metadata.icc[i : i + size] for i in range(0, len(metadata.icc), size)]
        for number, part in enumerate(parts, 1):
            yield Segment(_APP2, _ICC + bytes((number, len(parts) % 256)) + part)
    comment = metadata.text.get("Comment", "").encode()
    if comment and len(comment) <= _SEGMENT:
        yield Segment(_COMMENT, comment)

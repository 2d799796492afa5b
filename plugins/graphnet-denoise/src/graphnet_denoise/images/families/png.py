"""PNG: 1 to 16 bits, grey, colour, palette and alpha; all chunks beside the pixels are kept as they are."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import imagecodecs
import numpy as np

from graphnet_denoise.images.families.depths import refuse, shape_for
from graphnet_denoise.images.faults import unsupported
from graphnet_denoise.images.file import DecodedFile, ImageFile, ImageSink
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, Samples, bands
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import METRE, Metadata
from graphnet_denoise.images.scratch import Scratch
from graphnet_denoise.sampling import middle

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 3, _GREY_ALPHA: 2, _RGBA: 4}
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _PALETTE: (1, 2, 4, 8)}
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # made anew
_OF_PALETTE = (b"hIST", b"sPLT", b"bKGD", b"sBIT")  # they count in the old kind of pixels
_KNOWN = (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"tIME", b"sBIT")
_LARGEST_RATIO = 1040  # deflate makes nothing smaller than 1/1032 of its size
_LONGEST_TEXT = 1 << 24
_BAND_BYTES = 1 << 20  # of pixels that are encoded at a time
_SAMPLE_BYTES = 1 << 17  # of pixels with which ways to compress are tried
_STRATEGIES = (zlib.Z_RLE, zlib.Z_FILTERED, zlib.Z_DEFAULT_STRATEGY)
_XMP = b"XML:com.adobe.xmp"


class Chunk(NamedTuple):
    """A chunk of a PNG: its kind and its data."""

    kind: bytes
    data: bytes

    def encoded(self) -> bytes:
        """The bytes of the chunk in a file."""
        check = struct.pack(">I", zlib.crc32(self.kind + self.data))
        return struct.pack(">I", len(self.data)) + self.kind + self.data + check


class PngFile(DecodedFile):
    """An open PNG.

    Levels count from 0 (black) to 2**bits - 1. A palette becomes colours of 8 bits, or grey if it has only
    greys; a transparent colour becomes alpha.
    """

    format = "png"
    title = "a PNG"

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.chunks = list(_chunks(file, with_pixels=False))
        width, height, bits, kind, *_ = struct.unpack(">IIBBBBB", self.chunks[0].data)
        if kind not in _SAMPLES or bits not in _DEPTHS.get(kind, (8, 16)) or not width * height:
            raise ValueError("its header is wrong")
        if any(chunk.kind == b"acTL" for chunk in self.chunks):
            raise unsupported(path, "a still image", "an animation", "Save each frame as a file.")
        self.kind = kind
        self.palette = kind == _PALETTE
        grey = kind in (_GREY, _GREY_ALPHA) or (self.palette and self._greys_only())
        self.colour = "grey" if grey else "rgb"
        self.channels = 1 if grey else 3
        self.alpha = kind in (_GREY_ALPHA, _RGBA) or self._find(b"tRNS") is not None
        self.levels = Levels(
            np.dtype(np.uint16 if bits == 16 else np.uint8), 8 if self.palette else bits
        )
        self.layout = shape_for(height, width, self.channels + self.alpha)
        self.metadata = self._metadata()

    def _find(self, kind: bytes) -> bytes | None:
        return next((chunk.data for chunk in self.chunks if chunk.kind == kind), None)

    def _greys_only(self) -> bool:
        colours = np.frombuffer(self._find(b"PLTE") or b"", np.uint8)
        return len(colours) % 3 == 0 and bool(
            (colours.reshape(-1, 3) == colours.reshape(-1, 3)[:, :1]).all()
        )

    def _decode(self) -> Samples:
        with self.path.open("rb") as file:
            needed = [chunk for chunk in _chunks(file) if chunk.kind in _OF_PIXELS]
        size = sum(len(chunk.data) for chunk in needed if chunk.kind == b"IDAT")
        width, height, depth, *_ = struct.unpack(">IIBBBBB", self.chunks[0].data)
        stored = 1 if self.palette else _SAMPLES[self.kind]
        if size * _LARGEST_RATIO * 8 < width * height * depth * stored:
            raise ValueError(f"{size} bytes cannot hold {width} x {height} pixels")
        array = imagecodecs.png_decode(
            SIGNATURE
            + b"".join(chunk.encoded() for chunk in needed)
            + Chunk(b"IEND", b"").encoded()
        )
        samples = array.reshape(height, width, -1).transpose(2, 0, 1)
        if self.palette and self.channels == 1:
            samples = samples[[0, 3]] if len(samples) == 4 else samples[:1]
        if self.levels.bits < 8:  # the decoder spreads few bits over 0..255
            samples = samples // (255 // int(self.levels.high))
        return np.asarray(samples, self.levels.dtype).reshape(self.layout.samples, height, width)

    def _metadata(self) -> Metadata:
        icc = xmp = resolution = None
        text: dict[str, str] = {}
        for kind, data in self.chunks:
            try:
                if kind == b"iCCP":
                    icc = _unpacked(data.partition(b"\0")[2][1:])
                elif kind == b"pHYs":
                    x, y, unit = struct.unpack(">IIB", data)
                    resolution = (x / METRE, y / METRE) if unit == 1 else None
                elif kind in (b"tEXt", b"zTXt", b"iTXt"):
                    key, value = _text(kind, data)
                    if key == _XMP:
                        xmp = value
                    else:
                        coding = "utf-8" if kind == b"iTXt" else "latin-1"
                        text[key.decode("latin-1")] = value.decode(coding)
            except (IndexError, ValueError, struct.error, zlib.error):
                continue  # the chunk itself is kept as it is
        return Metadata(icc, self._find(b"eXIf"), xmp, resolution, text)


class PngSink(ImageSink):
    """A PNG that is being written: its pixels wait in a scratch array, and are encoded band by band."""

    def __init__(self, target: Path, source: ImageFile, layout: Layout, levels: Levels) -> None:
        super().__init__(source, layout, levels)
        self.target = target
        self._scratch = Scratch(target.parent, layout.shape, levels.dtype)
        if isinstance(source, PngFile):
            self._before, self._after = _kept(source)
        else:
            self._before, self._after = list(_described(source.metadata)), []

    def _put(self, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        with self._scratch.opened() as array:
            self.layout.write(array, plane, rows, columns, samples)

    def _finish(self) -> None:
        layout, bits = self.layout, self.levels.bits
        kind = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGBA}[layout.samples]
        header = struct.pack(">IIBBBBB", layout.width, layout.height, bits, kind, 0, 0, 0)
        with self.target.open("wb") as file:
            file.write(SIGNATURE)
            for chunk in (Chunk(b"IHDR", header), *self._before, *self._pixels()):
                file.write(chunk.encoded())
            for chunk in (*self._after, Chunk(b"IEND", b"")):
                file.write(chunk.encoded())

    def _pixels(self) -> Iterator[Chunk]:
        """The chunks of the pixels, which are one stream of compressed rows."""
        packer = self._packer()
        for rows in bands(self.layout.height, self._rows(_BAND_BYTES)):
            if data := packer.compress(self._stored(rows)):
                yield Chunk(b"IDAT", data)
        yield Chunk(b"IDAT", packer.flush())

    def _packer(self) -> zlib._Compress:
        """The compressor that makes least of some rows in the middle.

        It looks for runs of bytes only, which is best for photographs and fast, or for all that comes again.
        """
        sample = self._stored(middle(self.layout.height, self._rows(_SAMPLE_BYTES)))

        def packer(strategy: int) -> zlib._Compress:
            return zlib.compressobj(9 if self.levels.bits < 8 else 6, strategy=strategy)

        def size(strategy: int) -> int:
            trial = packer(strategy)
            return len(trial.compress(sample)) + len(trial.flush())

        return packer(min(_STRATEGIES, key=size))

    def _rows(self, size_bytes: int) -> int:
        """How many rows have so many bytes, 1 at least."""
        layout = self.layout
        return max(1, size_bytes // (layout.width * layout.samples * self.levels.dtype.itemsize))

    def _stored(self, rows: slice) -> bytes | memoryview:
        """Rows as a PNG stores them, each after the byte that says its filter."""
        above = min(1, rows.start)  # a filter looks at the row above
        with self._scratch.opened() as array:
            band = np.array(array[rows.start - above : rows.stop])
        if self.levels.bits < 8:
            return _packed(band[above:], self.levels.bits)
        # The library chooses the filters; its level 0 compresses nothing.
        encoded = imagecodecs.png_encode(band, level=0)
        parts = [chunk.data for chunk in _chunks(io.BytesIO(encoded)) if chunk.kind == b"IDAT"]
        stored = memoryview(zlib.decompress(b"".join(parts)))
        return stored[above * (len(stored) // len(band)) :]

    def close(self) -> None:
        """Forget the pixels."""
        self._scratch.close()


class Png(Format):
    """PNG files."""

    name = "png"
    title = "a PNG"
    suffixes = (".png",)

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(SIGNATURE)

    def open(self, path: Path) -> ImageFile:
        return PngFile(path)

    def writes_parts(self, source: ImageFile) -> bool:
        return True

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> PngSink:
        refuse(name, self.title, source, colours=("grey", "rgb"))
        levels = source.levels
        if levels.bits not in (1, 2, 4, 8, 16):  # such as 12 bits of a TIFF
            levels = Levels(np.dtype(np.uint16), 16)
        if levels.bits < 8 and (source.alpha or source.channels == 3):
            levels = Levels(np.dtype(np.uint8), 8)
        layout = shape_for(source.height, source.width, source.channels + source.alpha)
        return PngSink(target, source, layout, levels)


def _chunks(file: BinaryIO, *, with_pixels: bool = True) -> Iterator[Chunk]:
    """The chunks of a PNG; those beside the pixels whose checksum is wrong are left out.

    Without pixels, IDAT chunks come without their data, which are not read.
    """
    if file.read(16)[8:] != b"\0\0\0\x0dIHDR":
        raise ValueError("it has no header")
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind == b"IDAT" and not with_pixels:
            file.seek(length + 4, os.SEEK_CUR)
            yield Chunk(kind, b"")
            continue
        chunk = Chunk(kind, file.read(length))
        whole = file.read(4) == struct.pack(">I", zlib.crc32(chunk.kind + chunk.data))
        if kind in _OF_PIXELS and not whole:
            raise ValueError(f"the checksum of its {kind.decode()} is wrong")
        if whole:
            yield chunk


def _unpacked(data: bytes) -> bytes:
    """Decompress text or a profile, of which only the beginning is taken if it is very long."""
    return zlib.decompressobj().decompress(data, _LONGEST_TEXT)


def _text(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    key, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        return key, rest
    if kind == b"zTXt":
        return key, _unpacked(rest[1:])
    packed, rest = rest[0], rest[2:]
    value = rest.split(b"\0", 2)[2]
    return key, _unpacked(value) if packed else value


def _kept(source: PngFile) -> tuple[list[Chunk], list[Chunk]]:
    """The chunks before and after the pixels that stay true when the pixels change."""
    before: list[Chunk] = []
    after: list[Chunk] = []
    place = before
    changed = source.palette or source._find(b"tRNS") is not None
    for chunk in source.chunks:
        if chunk.kind == b"IDAT":
            place = after
        if chunk.kind in _OF_PIXELS or (changed and chunk.kind in _OF_PALETTE):
            continue
        if chunk.kind[3:].islower() or chunk.kind in _KNOWN + _OF_PALETTE:  # safe to copy
            place.append(chunk)
    return before, after


def _described(metadata: Metadata) -> Iterator[Chunk]:
    """Chunks for the metadata of a file of another format."""
    if metadata.icc:
        yield Chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    if resolution := metadata.resolution_times(METRE, most=2**31 - 1):
        yield Chunk(b"pHYs", struct.pack(">IIB", *resolution, 1))
    if metadata.exif:
        yield Chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        yield Chunk(b"iTXt", _XMP + b"\0\0\0\0\0" + metadata.xmp)
    for key, value in metadata.text.items():
        keyword = key.encode("latin-1", "replace")[:79]
        yield Chunk(b"iTXt", keyword + b"\0\0\0\0\0" + value.encode())


def _packed(levels: Samples, bits: int) -> bytes:
    """Rows of 1, 2 or 4 bits a pixel, each after the byte that says it has no filter."""
    height, width = levels.shape
    places = np.arange(bits - 1, -1, -1, dtype=np.uint8)
    digits = (levels[..., None] >> places) & 1
    rows = np.packbits(digits.reshape(height, width * bits), axis=1)
    return np.pad(rows, ((0, 0), (1, 0))).tobytes()

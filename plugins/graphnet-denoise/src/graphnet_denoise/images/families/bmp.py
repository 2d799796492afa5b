"""BMP: uncompressed files of 8 (grey), 24 and 32 bits are changed in place; others become 24 bits."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, Image

from graphnet_denoise.images.families.depths import refuse, shape_for, together
from graphnet_denoise.images.file import DecodedFile, EncodedSink, ImageFile
from graphnet_denoise.images.flat import FlatFile, FlatSink, Place
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import METRE, Metadata

_LEVELS = Levels(np.dtype(np.uint8), 8)
_FILE_HEADER, _OLD_HEADER = 14, 12
_RESOLUTION = 38  # where it stands in the file
_PLAIN, _MASKS = (0,), (3, 6)
_BGRA = (0xFF0000, 0xFF00, 0xFF)


class _Header:
    """The two headers of a BMP."""

    def __init__(self, data: bytes) -> None:
        self.offset, self.size = struct.unpack_from("<II", data, 10)
        if self.size == _OLD_HEADER:
            self.width, self.height, _, self.bits = struct.unpack_from("<HHHH", data, 18)
            self.compression, self.resolution, colours = 0, None, 0
        else:
            self.width, height, _, self.bits, self.compression = struct.unpack_from(
                "<iiHHI", data, 18
            )
            self.height = height
            x, y, colours = struct.unpack_from("<iiI", data, _RESOLUTION)
            self.resolution = (x / METRE, y / METRE) if x > 0 and y > 0 else None
        if self.width < 1 or self.height == 0:
            raise ValueError("its header is wrong")
        entry = 3 if self.size == _OLD_HEADER else 4
        start = _FILE_HEADER + self.size
        self.palette = data[start : start + entry * (colours or 256)]
        self.entry = entry
        masks = struct.unpack_from("<IIII", data, 54) if len(data) >= 70 and self.size >= 40 else ()
        self.masks = masks[:3]
        self.has_alpha = self.bits == 32 and self.size >= 56 and masks[3:] == (0xFF000000,)

    @property
    def grey(self) -> bool:
        """Whether the palette has the 256 greys in their order."""
        levels = np.arange(256, dtype=np.uint8)
        if len(self.palette) != 256 * self.entry:
            return False
        colours = np.frombuffer(self.palette, np.uint8).reshape(256, self.entry)
        return bool((colours[:, :3] == levels[:, None]).all())

    @property
    def flat(self) -> bool:
        """Whether the pixels are an array of bytes."""
        if self.compression in _PLAIN:
            return self.bits in (24, 32) or (self.bits == 8 and self.grey)
        return self.compression in _MASKS and self.bits == 32 and self.masks == _BGRA


class FlatBmp(FlatFile):
    """An open BMP whose pixels are an array of bytes; its rows go from the bottom up in most files."""

    format = "bmp"
    title = "a BMP"

    def __init__(self, path: Path, header: _Header) -> None:
        self.path = path
        self.levels = _LEVELS
        self.stored = header.bits // 8
        width, height = header.width, abs(header.height)
        row = (width * self.stored + 3) // 4 * 4
        self.channels = 1 if self.stored == 1 else 3
        self.colour = "grey" if self.channels == 1 else "rgb"
        self.alpha = header.has_alpha
        self.layout = shape_for(height, width, self.stored)
        upwards = header.height > 0
        self.place = Place(
            header.offset,
            np.dtype(np.uint8),
            (height, width, self.stored)[: 2 + (self.stored > 1)],
            strides=(-row if upwards else row, self.stored, 1)[: 2 + (self.stored > 1)],
            origin=row * (height - 1) if upwards else 0,
        )
        self.check_size()
        self.metadata = Metadata(resolution=header.resolution)

    def from_stored(self, region: Samples) -> Samples:
        """Blue comes first in the file."""
        return region if len(region) == 1 else region[[2, 1, 0, 3][: len(region)]]

    def to_stored(self, samples: Samples) -> Samples:
        """Blue comes first in the file."""
        return self.from_stored(samples)


class PackedBmp(DecodedFile):
    """An open BMP with a palette, with runs of equal pixels, or with 16 bits for all three colours."""

    format = "bmp"
    title = "a BMP"

    def __init__(self, path: Path) -> None:
        self.path = path
        image = self._image()
        self.colour = "grey" if image.mode in ("1", "L") else "rgb"
        self.channels = 1 if self.colour == "grey" else 3
        self.alpha = image.mode == "RGBA"
        self.levels = _LEVELS
        self.layout = shape_for(image.height, image.width, self.channels + self.alpha)
        dpi = image.info.get("dpi")
        self.metadata = Metadata(resolution=dpi if dpi and all(dpi) else None)

    def _image(self) -> BmpImagePlugin.BmpImageFile:
        return BmpImagePlugin.BmpImageFile(io.BytesIO(self.path.read_bytes()))

    def _decode(self) -> Samples:
        mode = "RGBA" if self.alpha else "RGB"
        samples = np.asarray(self._image().convert(mode)).transpose(2, 0, 1)
        return samples[:1] if self.channels == 1 else samples


class BmpSink(EncodedSink):
    """A BMP of 8 bits (grey), 24 bits, or 32 with alpha, that is being written."""

    def _encode(self, samples: Samples) -> bytes:
        image = Image.fromarray(together(samples))
        buffer = io.BytesIO()
        image.save(buffer, "BMP")
        # Not by Pillow, which states 96 pixels per inch where nothing is known.
        resolution = self.source.metadata.resolution_times(METRE, most=2**31 - 1)
        buffer.seek(_RESOLUTION)
        buffer.write(struct.pack("<ii", *(resolution or (0, 0))))
        return buffer.getvalue()


class Bmp(Format):
    """BMP files."""

    name = "bmp"
    title = "a BMP"
    suffixes = (".bmp", ".dib")

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"BM") and struct.unpack("<I", head[14:18].ljust(4, b"\0"))[0] < 256

    def open(self, path: Path) -> ImageFile:
        with path.open("rb") as file:
            header = _Header(file.read(4096))
        return FlatBmp(path, header) if header.flat else PackedBmp(path)

    def writes_parts(self, source: ImageFile) -> bool:
        return isinstance(source, FlatBmp)

    def create(
        self, target: Path, source: ImageFile, *, name: Path, history: str
    ) -> FlatSink | BmpSink:
        if isinstance(source, FlatBmp):
            return FlatSink(
                target,
                source,
                source.layout,
                source.levels,
                place=source.place,
                head=[source.head()],
                tail=[source.tail()],
                stored=source.to_stored,
            )
        refuse(name, self.title, source, colours=("grey", "rgb"), alpha=False)
        layout: Layout = shape_for(source.height, source.width, source.channels)
        return BmpSink(target, source, layout, _LEVELS)

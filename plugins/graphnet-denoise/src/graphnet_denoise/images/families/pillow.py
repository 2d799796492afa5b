"""WebP, GIF and AVIF, by Pillow: still pictures of 8 bits."""

from __future__ import annotations

import io
import struct
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from PIL import AvifImagePlugin, GifImagePlugin, Image, WebPImagePlugin
from PIL import ImageFile as PillowFile

from graphnet.errors import DataError
from graphnet_denoise.images.families.depths import refuse, shape_for, together
from graphnet_denoise.images.faults import check_ratio, unsupported
from graphnet_denoise.images.file import DecodedFile, EncodedSink, ImageFile
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import Metadata

QUALITY = 95
"""The quality of lossy files: these formats do not say with which one a file was written."""

_LEVELS = Levels(np.dtype(np.uint8), 8)


class PillowImage(DecodedFile):
    """An open file of one still picture that Pillow decodes; a subclass names Pillow's class for it."""

    decoder: ClassVar[type[PillowFile.ImageFile]]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = path.read_bytes()
        image = self._image()
        check_ratio(image.width * image.height, path)  # Pillow counts pictures by decoding them
        if getattr(image, "n_frames", 1) > 1:
            found = f"an animation of {getattr(image, 'n_frames', 1)} pictures"
            raise unsupported(path, "a still picture", found, "Save each picture as a file.")
        self.colour = "grey" if self._is_grey(image) else "rgb"
        self.alpha = image.mode == "RGBA" or "transparency" in image.info
        self.channels = 1 if self.colour == "grey" else 3
        self.levels = _LEVELS
        self.layout = shape_for(image.height, image.width, self.channels + self.alpha)
        info = image.info
        exif = info.get("exif")
        self.metadata = Metadata(
            info.get("icc_profile"),
            exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else None,
            info.get("xmp") if isinstance(info.get("xmp"), bytes) else None,
            text={"Comment": _text(info["comment"])} if info.get("comment") else {},
        )

    def _image(self) -> PillowFile.ImageFile:
        # Not by Image.open, which refuses large images.
        return type(self).decoder(io.BytesIO(self._data))

    def _is_grey(self, image: Image.Image) -> bool:
        return image.mode in ("L", "LA", "1")

    def _decode(self) -> Samples:
        image = self._image().convert("RGBA" if self.alpha else "RGB")
        samples = np.asarray(image).transpose(2, 0, 1)
        return samples[[0, *range(3, len(samples))]] if self.colour == "grey" else samples

    def close(self) -> None:
        """Forget the pixels and the file's bytes."""
        super().close()
        self._data = b""


class WebpFile(PillowImage):
    """An open WebP."""

    format = "webp"
    title = "a WebP"
    decoder = WebPImagePlugin.WebPImageFile

    @property
    def lossless(self) -> bool:
        """Whether the file holds its pixels without loss."""
        return b"VP8L" in _riff_kinds(self._data)


class GifFile(PillowImage):
    """An open GIF of one picture."""

    format = "gif"
    title = "a GIF"
    decoder = GifImagePlugin.GifImageFile

    def _is_grey(self, image: Image.Image) -> bool:
        palette = image.getpalette("RGB") if image.mode == "P" else None
        if palette is None:
            return image.mode in ("L", "1")
        colours = np.reshape(palette, (-1, 3))
        return bool((colours == colours[:, :1]).all())


class AvifFile(PillowImage):
    """An open AVIF of 8 bits."""

    format = "avif"
    title = "an AVIF"
    decoder = AvifImagePlugin.AvifImageFile

    def __init__(self, path: Path) -> None:
        flags = _av1_flags(path.read_bytes())
        if flags & 0x40:
            found = "12 bits" if flags & 0x20 else "10 bits"
            raise unsupported(path, "an AVIF of 8 bits", found, "Convert it to a PNG of 16 bits.")
        self.subsampling = {0x10: "4:0:0", 0x1C: "4:0:0", 0x0C: "4:2:0", 0x08: "4:2:2"}.get(
            flags & 0x1C, "4:4:4"
        )
        super().__init__(path)

    def _is_grey(self, image: Image.Image) -> bool:
        return self.subsampling == "4:0:0"


class PillowSink(EncodedSink):
    """A file that Pillow writes; `side` is the longest that it may have."""

    side: ClassVar[int] = 65535

    def _encode(self, samples: Samples) -> bytes:
        grey = self.source.channels == 1
        mode = ("L" if grey else "RGB") + "A" * (len(samples) > self.source.channels)
        image = Image.fromarray(together(samples), mode)
        buffer = io.BytesIO()
        self._save(image, buffer)
        return buffer.getvalue()

    @abstractmethod
    def _save(self, image: Image.Image, buffer: io.BytesIO) -> None:
        """Encode the image."""

    def _about(self) -> dict[str, Any]:
        metadata = self.source.metadata
        about = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp}
        return {key: value for key, value in about.items() if value}


class WebpSink(PillowSink):
    """A WebP that is being written, lossless if the source is."""

    side = 16383

    def _save(self, image: Image.Image, buffer: io.BytesIO) -> None:
        source = self.source
        lossless = not isinstance(source, WebpFile) or source.lossless
        image.save(buffer, "WEBP", lossless=lossless, exact=True, quality=QUALITY, **self._about())


class AvifSink(PillowSink):
    """An AVIF that is being written."""

    def _save(self, image: Image.Image, buffer: io.BytesIO) -> None:
        source = self.source
        subsampling = source.subsampling if isinstance(source, AvifFile) else "4:4:4"
        image.save(buffer, "AVIF", quality=QUALITY, subsampling=subsampling, **self._about())


class GifSink(PillowSink):
    """A GIF that is being written: grey stays exact, colours become the 256 that fit best."""

    def _save(self, image: Image.Image, buffer: io.BytesIO) -> None:
        options: dict[str, Any] = {}
        comment = self.source.metadata.text.get("Comment")
        if comment:
            options["comment"] = comment.encode()
        if "A" not in image.getbands():
            if image.mode == "RGB":
                image = image.quantize(256, dither=Image.Dither.NONE)
            image.save(buffer, "GIF", optimize=False, **options)
            return
        opaque = np.asarray(image.getchannel("A")) >= 128
        palette = image.convert("RGB").quantize(255, dither=Image.Dither.NONE)
        indices = np.where(opaque, np.asarray(palette), 255).astype(np.uint8)
        indexed = Image.fromarray(indices, "P")
        colours = [*(palette.getpalette("RGB") or ()), *([0] * 768)][:765]
        clear = np.asarray(image)[~opaque]
        colours += clear[0, :3].tolist() if clear.size else [0, 0, 0]
        indexed.putpalette(colours)
        indexed.save(buffer, "GIF", optimize=False, transparency=255, **options)


S = TypeVar("S", bound=PillowSink)


class Webp(Format):
    """WebP files."""

    name = "webp"
    title = "a WebP"
    suffixes = (".webp",)

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"RIFF") and head[8:12] == b"WEBP"

    def open(self, path: Path) -> ImageFile:
        return WebpFile(path)

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> WebpSink:
        return _sink(WebpSink, target, source, name, self.title)


class Gif(Format):
    """GIF files of one picture."""

    name = "gif"
    title = "a GIF"
    suffixes = (".gif",)

    def matches(self, path: Path, head: bytes) -> bool:
        return head[:6] in (b"GIF87a", b"GIF89a")

    def open(self, path: Path) -> ImageFile:
        return GifFile(path)

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> GifSink:
        return _sink(GifSink, target, source, name, self.title)


class Avif(Format):
    """AVIF files of 8 bits."""

    name = "avif"
    title = "an AVIF"
    suffixes = (".avif",)

    def matches(self, path: Path, head: bytes) -> bool:
        return head[4:12] in (b"ftypavif", b"ftypavis")

    def open(self, path: Path) -> ImageFile:
        if not AvifImagePlugin.SUPPORTED:
            raise DataError(
                f"{path}: the installed Pillow cannot read AVIF. Install it from PyPI: "
                f"python -m pip install --upgrade pillow"
            )
        return AvifFile(path)

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> AvifSink:
        return _sink(AvifSink, target, source, name, self.title)


def _sink(kind: type[S], target: Path, source: ImageFile, name: Path, title: str) -> S:
    refuse(name, title, source, colours=("grey", "rgb"), side=kind.side)
    layout = shape_for(source.height, source.width, source.channels + source.alpha)
    return kind(target, source, layout, _LEVELS)


def _riff_kinds(data: bytes) -> Iterator[bytes]:
    """The kinds of the chunks of a WebP, one after the other."""
    place = 12
    while len(head := data[place : place + 8]) == 8:
        kind, length = struct.unpack("<4sI", head)
        yield kind
        place += 8 + length + length % 2


def _av1_flags(data: bytes) -> int:
    """The byte of the decoder's configuration that tells bits and subsampling (AV1-ISOBMFF 2.3.3)."""
    place = data.find(b"av1C")
    if not 0 <= place < len(data) - 7:
        raise ValueError("it has no AV1 configuration")
    return data[place + 6]


def _text(comment: object) -> str:
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)

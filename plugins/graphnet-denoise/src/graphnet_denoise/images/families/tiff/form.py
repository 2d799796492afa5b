"""The format TIFF."""

from __future__ import annotations

from pathlib import Path

from graphnet_denoise.images.families.tiff.reading import TiffImage
from graphnet_denoise.images.families.tiff.writing import (
    TiffSink,
    from_other,
    is_of_maker,
    like_tiff,
)
from graphnet_denoise.images.file import ImageFile
from graphnet_denoise.images.format import Format


class Tiff(Format):
    """TIFF files, BigTIFF, ImageJ and OME-TIFF among them."""

    name = "tiff"
    title = "a TIFF"
    suffixes = (".tif", ".tiff", ".btf", ".tf8")

    def matches(self, path: Path, head: bytes) -> bool:
        return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

    def open(self, path: Path) -> ImageFile:
        return TiffImage(path)

    def writes_parts(self, source: ImageFile) -> bool:
        return True

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> TiffSink:
        if isinstance(source, TiffImage) and not is_of_maker(source):
            return like_tiff(target, source)
        return from_other(target, source)

"""Raw files of cameras, by rawpy (LibRaw): read to linear RGB of 16 bits; a result is a TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from graphnet_denoise.images.families.depths import shape_for
from graphnet_denoise.images.families.tiff.directory import form_of
from graphnet_denoise.images.families.tiff.tags import metadata_of
from graphnet_denoise.images.faults import load
from graphnet_denoise.images.file import DecodedFile, ImageFile
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Samples
from graphnet_denoise.images.levels import Levels
from graphnet_denoise.images.metadata import Metadata


class RawFile(DecodedFile):
    """An open raw file, demosaiced with the camera's white balance: linear sRGB, 0 to 65535, not turned."""

    format = "raw"
    title = "a camera's raw file"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rawpy = load("rawpy", extra="raw", path=path)
        with self._rawpy.imread(str(path)) as raw:
            sizes = raw.sizes
            height, width = sizes.height, sizes.width
        self.colour, self.channels = "rgb", 3
        self.levels = Levels(np.dtype(np.uint16), 16)
        self.layout = shape_for(height, width, 3)
        self.metadata = self._metadata()

    def _metadata(self) -> Metadata:
        try:
            with tifffile.TiffFile(self.path) as tiff, self.path.open("rb") as file:
                form = form_of(file)
                return metadata_of(form.read(file, tiff.pages.first.offset)[0], form)
        except Exception:  # not every raw file is a TIFF
            return Metadata()

    def _decode(self) -> Samples:
        with self._rawpy.imread(str(self.path)) as raw:
            array = raw.postprocess(
                gamma=(1, 1),
                no_auto_bright=True,
                output_bps=16,
                use_camera_wb=True,
                user_flip=0,  # the orientation stays a tag
            )
        return np.asarray(array).transpose(2, 0, 1)


class Raw(Format):
    """DNG and other raw files of cameras."""

    name = "raw"
    title = "a camera's raw file"
    read_only = True
    suffixes = (
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".raf",
        ".orf",
        ".rw2",
        ".pef",
        ".srw",
        ".nrw",
    )

    def matches(self, path: Path, head: bytes) -> bool:
        return path.suffix.lower() in self.suffixes

    def open(self, path: Path) -> ImageFile:
        return RawFile(path)

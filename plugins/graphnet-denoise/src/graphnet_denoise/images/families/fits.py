"""FITS: the first image of a file; its header is kept, with a line of HISTORY, and all other parts too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphnet.errors import DataError
from graphnet_denoise.images.disk import Stretch
from graphnet_denoise.images.faults import load, unsupported
from graphnet_denoise.images.file import ImageFile
from graphnet_denoise.images.flat import FlatFile, FlatSink, Place
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Samples, guessed
from graphnet_denoise.images.levels import Levels

_BLOCK = 2880
_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_SUMS = ("CHECKSUM", "DATASUM")  # they no longer hold when the pixels change


class FitsFile(FlatFile):
    """An open FITS file.

    BZERO that only stands for unsigned numbers gives these; with another BZERO or BSCALE, pixels are
    floating-point numbers in the file's physical unit, and BLANK is NaN.
    """

    format = "fits"
    title = "a FITS file"

    def __init__(self, path: Path) -> None:
        self.path = path
        fits = load("astropy.io.fits", extra="fits", path=path)
        with (
            path.open("rb") as stream,  # astropy leaves a file open that it cannot read
            fits.open(
                stream, memmap=False, lazy_load_hdus=True, disable_image_compression=True
            ) as units,
        ):
            unit = next((unit for unit in units if _is_image(unit)), None)
            if unit is None:
                kinds = ", ".join(type(unit).__name__ for unit in units)
                remedy = "Unpack a compressed image first (funpack)."
                raise unsupported(path, "an uncompressed image", f"none in {kinds}", remedy)
            self.header = unit.header.copy()
            places = unit.fileinfo()
            self._start, self._end = places["hdrLoc"], places["datLoc"] + places["datSpan"]
            shape = tuple(
                int(self.header[f"NAXIS{axis}"]) for axis in range(self.header["NAXIS"], 0, -1)
            )
            self.place = Place(places["datLoc"], np.dtype(_TYPES[self.header["BITPIX"]]), shape)
        if 0 in shape:
            raise ValueError("its image is empty")
        self.check_size()
        self.layout = guessed(shape, colours_last=False)
        self.channels = self.layout.samples
        self.colour = "rgb" if self.channels == 3 else "grey"
        self._scale, self._zero = (
            float(self.header.get(key, default)) for key, default in (("BSCALE", 1), ("BZERO", 0))
        )
        self._blank = self.header.get("BLANK")
        self.levels = self._levels()

    def _levels(self) -> Levels:
        stored = self.place.dtype
        self._shift = 0
        if stored.kind == "f" or (self._scale == 1 and self._zero == 0):
            if stored.kind == "f" and (self._scale != 1 or self._zero != 0):
                return Levels.of(np.dtype(np.float64))
            return Levels.of(stored)
        half = 2 ** (stored.itemsize * 8 - 1)
        if self._scale == 1 and self._zero == (half if stored.kind == "i" else -half):
            self._shift = int(self._zero)
            kind = "u" if stored.kind == "i" else "i"
            return Levels.of(np.dtype(f"{kind}{stored.itemsize}"))
        return Levels.of(np.dtype(np.float32 if stored.itemsize < 4 else np.float64))

    @property
    def _scaled(self) -> bool:
        return not self._shift and (self._scale != 1 or self._zero != 0)

    def from_stored(self, region: Samples) -> Samples:
        """Turn the stored numbers into levels."""
        if self._shift:  # the highest bit counts the other way round
            return _flipped(region.astype(region.dtype.newbyteorder("="))).view(self.dtype)
        if not self._scaled:
            return region.astype(self.dtype)
        physical = region.astype(np.float64) * self._scale + self._zero
        if self._blank is not None and region.dtype.kind != "f":
            physical[region == self._blank] = np.nan
        return physical.astype(self.dtype)

    def to_stored(self, samples: Samples) -> Samples:
        """Turn levels into the numbers that are stored."""
        if self._shift:
            return _flipped(samples.view(self.place.dtype.newbyteorder("=")))
        if not self._scaled:
            return samples
        raw = (samples.astype(np.float64) - self._zero) / self._scale
        stored = Levels.of(self.place.dtype).round(raw)
        if self._blank is not None and stored.dtype.kind != "f":
            stored[np.isnan(samples)] = self._blank
        return stored

    def header_with(self, history: str) -> bytes:
        """The header of the image, with one more line of HISTORY."""
        header = self.header.copy()
        for key in _SUMS:
            header.remove(key, ignore_missing=True)
        if history:
            header.add_history(history.encode("ascii", "replace").decode())
        text: str = header.tostring(endcard=True, padding=True)
        return text.encode("ascii")

    @property
    def before(self) -> Stretch:
        """All parts of the file before the header of the image."""
        return Stretch(self.path, 0, self._start)

    @property
    def padding(self) -> bytes:
        """The bytes that complete the last block of the image."""
        return bytes(self._end - self.place.offset - self.place.size_bytes)

    @property
    def behind(self) -> Stretch:
        """All parts of the file behind the image."""
        return Stretch.rest(self.path, self._end)


class Fits(Format):
    """FITS files."""

    name = "fits"
    title = "a FITS file"
    suffixes = (".fits", ".fit", ".fts")

    def matches(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"SIMPLE  =")

    def open(self, path: Path) -> ImageFile:
        return FitsFile(path)

    def writes_parts(self, source: ImageFile) -> bool:
        return True

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> FlatSink:
        if not isinstance(source, FitsFile):
            raise DataError(
                f"{name}: a FITS file is written only if the image is one. Give a name that ends in .tif"
            )
        header = source.header_with(history)
        stored = source.place
        place = Place(source.before.size_bytes + len(header), stored.dtype, stored.shape)
        return FlatSink(
            target,
            source,
            source.layout,
            source.levels,
            place=place,
            head=[source.before, header],
            tail=[source.padding, source.behind],
            stored=source.to_stored,
        )


def _is_image(unit: Any) -> bool:
    return bool(unit.is_image and unit.header.get("NAXIS", 0) >= 2)


def _flipped(numbers: Samples) -> Samples:
    """Change the highest bit of each number."""
    unsigned = numbers.view(f"u{numbers.dtype.itemsize}")
    highest = unsigned.dtype.type(1 << (unsigned.dtype.itemsize * 8 - 1))
    return np.asarray(unsigned ^ highest).view(numbers.dtype)

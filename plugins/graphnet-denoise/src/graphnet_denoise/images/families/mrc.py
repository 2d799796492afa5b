"""MRC: images and volumes of electron microscopes; the header is kept, its statistics are made anew."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from graphnet.errors import DataError
from graphnet_denoise.images.disk import Stretch
from graphnet_denoise.images.faults import load, unsupported
from graphnet_denoise.images.file import ImageFile
from graphnet_denoise.images.flat import FlatFile, FlatSink, Place
from graphnet_denoise.images.format import Format
from graphnet_denoise.images.layout import Layout, Samples
from graphnet_denoise.images.levels import Levels

_AXES = {2: "YX", 3: "ZYX", 4: "IZYX"}
_STATISTICS, _RMS, _LABEL_COUNT, _LABELS = 76, 216, 220, 224  # bytes of the header
_MODE, _EXTENSION, _STAMP = 12, 92, 212
_MODES = frozenset({0, 1, 2, 4, 6, 12, 101})  # those that mrcfile knows
_BIG_ENDIAN = b"\x11\x11"
_HEADER_BYTES = 1024
_LABEL_BYTES, _MOST_LABELS = 80, 10


class MrcFile(FlatFile):
    """An open MRC file: a plane for each section."""

    format = "mrc"
    title = "an MRC file"

    def __init__(self, path: Path) -> None:
        self.path = path
        mrcfile = load("mrcfile", extra="mrc", path=path)
        _check_extension(path)
        with mrcfile.mmap(path, mode="r", permissive=True) as opened:
            data = opened.data
            if data is None or data.size == 0:
                raise ValueError("it has no pixels")
            if data.dtype.kind not in "uif":
                raise unsupported(path, "real numbers", f"the type {data.dtype}", "Convert it.")
            self.place = Place(int(data.offset), data.dtype, data.shape)
        self.order = ">" if data.dtype.byteorder == ">" else "<"
        self.check_size()
        self.levels = Levels.of(data.dtype)
        self.layout = Layout(_AXES[data.ndim], data.shape)
        self.channels, self.colour = 1, "grey"

    def header(self) -> bytes:
        """The header, but for the extension that some programs add to it."""
        with self.path.open("rb") as file:
            return file.read(_HEADER_BYTES)


def _check_extension(path: Path) -> None:
    """Raise ValueError if the header is longer than the file: mrcfile would take the memory at once."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES).ljust(_HEADER_BYTES, b"\0")
    order, other = "><" if header[_STAMP : _STAMP + 2] == _BIG_ENDIAN else "<>"
    mode, other_mode = (struct.unpack_from(f"{one}i", header, _MODE)[0] for one in (order, other))
    if mode not in _MODES and other_mode in _MODES:  # as mrcfile reads a file with a wrong stamp
        order = other
    (length,) = struct.unpack_from(f"{order}i", header, _EXTENSION)
    if length > path.stat().st_size - _HEADER_BYTES:
        raise ValueError(f"its extended header has {length:,} bytes, more than the file")


class MrcSink(FlatSink):
    """An MRC file that is being written; it counts the statistics for its header."""

    def __init__(self, target: Path, source: MrcFile, history: str) -> None:
        super().__init__(
            target,
            source,
            source.layout,
            source.levels,
            place=source.place,
            head=[
                _labelled(source.header(), history, source.order),
                Stretch(source.path, _HEADER_BYTES, source.place.offset),
            ],
        )
        self._order = source.order
        self._lowest, self._highest, self._sum, self._squares = np.inf, -np.inf, 0.0, 0.0

    def _put(self, plane: int, rows: slice, columns: slice, samples: Samples) -> None:
        super()._put(plane, rows, columns, samples)
        if samples.size:
            values = samples.astype(np.float64)
            self._lowest = min(self._lowest, float(values.min()))
            self._highest = max(self._highest, float(values.max()))
            self._sum += float(values.sum())
            self._squares += float(np.square(values).sum())

    def _finish(self) -> None:
        count = float(np.prod(self.layout.shape, dtype=np.float64))
        mean = self._sum / count
        rms = max(self._squares / count - mean**2, 0.0) ** 0.5
        with self.target.open("rb+") as file:
            file.seek(_STATISTICS)
            file.write(struct.pack(f"{self._order}3f", self._lowest, self._highest, mean))
            file.seek(_RMS)
            file.write(struct.pack(f"{self._order}f", rms))


class Mrc(Format):
    """MRC files."""

    name = "mrc"
    title = "an MRC file"
    suffixes = (".mrc", ".mrcs", ".rec", ".st")

    def matches(self, path: Path, head: bytes) -> bool:
        return head[208:211] == b"MAP" or (len(head) >= 1024 and path.suffix.lower() == ".mrc")

    def open(self, path: Path) -> ImageFile:
        return MrcFile(path)

    def writes_parts(self, source: ImageFile) -> bool:
        return True

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> MrcSink:
        if isinstance(source, MrcFile):
            return MrcSink(target, source, history)
        raise DataError(
            f"{name}: an MRC file is written only if the image is one. Give a name that ends in .tif"
        )


def _labelled(header: bytes, history: str, order: str) -> bytes:
    """The header with one more label, if there is room for it."""
    (count,) = struct.unpack_from(f"{order}i", header, _LABEL_COUNT)
    if not history or not 0 <= count < _MOST_LABELS:
        return header
    label = history.encode("ascii", "replace")[:_LABEL_BYTES].ljust(_LABEL_BYTES, b"\0")
    changed = bytearray(header)
    start = _LABELS + count * _LABEL_BYTES
    changed[start : start + _LABEL_BYTES] = label
    struct.pack_into(f"{order}i", changed, _LABEL_COUNT, count + 1)
    return bytes(changed)

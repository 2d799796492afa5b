"""The zip that torch.save writes: a pickle stream, and the raw numbers of each storage.

Only uncompressed entries are read, so reading takes no more memory than the file is long.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet.errors import DataError

STORAGES = {
    "torch ByteStorage": "u1",
    "torch CharStorage": "i1",
    "torch ShortStorage": "i2",
    "torch IntStorage": "i4",
    "torch LongStorage": "i8",
    "torch HalfStorage": "f2",
    "torch FloatStorage": "f4",
    "torch DoubleStorage": "f8",
}
"""The name of a kind of storage in the stream -> the numpy dtype of its numbers."""

_STREAM_BYTES = 1 << 20  # two tensors take some hundred bytes


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The numbers of a storage, flat and contiguous; tensors are views of them."""

    numbers: NDArray[Any]


class Storages:
    """The entries of the zip: the pickle stream, and the numbers of each storage as a flat array."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.path = path
        self._archive = archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        self._read: dict[str, NDArray[np.uint8]] = {}
        self._left = path.stat().st_size  # entries that overlap could add up to any number of bytes
        streams = [name for name in self._entries if name.endswith("/data.pkl")]
        if len(streams) != 1 or streams[0].count("/") != 1:
            raise DataError(
                f"{path}: expected the zip of torch.save, with one entry NAME/data.pkl; found "
                f"{', '.join(list(self._entries)[:5]) or 'no entries'}."
            )
        self._root = streams[0].removesuffix("data.pkl")
        self._order = "<"
        if f"{self._root}byteorder" in self._entries and self._bytes("byteorder") == b"big":
            self._order = ">"

    def stream(self) -> bytes:
        stream = self._bytes("data.pkl")
        if len(stream) > _STREAM_BYTES:
            raise DataError(
                f"{self.path}: the pickle inside has {len(stream)} bytes; two tensors need a "
                f"few hundred. Save the tensors alone: torch.save((first, second), path)."
            )
        return stream

    def find(self, kind: str, key: str, count: int) -> Storage:
        """Return the storage `key`, which has `count` numbers of the kind that the stream names."""
        dtype = np.dtype(self._order + STORAGES[kind])
        if key not in self._read:
            self._read[key] = np.frombuffer(self._bytes(f"data/{key}"), np.uint8)
        numbers = self._read[key]
        if numbers.nbytes != count * dtype.itemsize:
            raise DataError(
                f"{self.path}: storage {key!r} should hold {count} numbers of {dtype.itemsize} "
                f"bytes, but has {numbers.nbytes} bytes; the file is damaged."
            )
        return Storage(numbers.view(dtype))

    def _bytes(self, name: str) -> bytes:
        entry = self._entries.get(self._root + name)
        if entry is None:
            raise DataError(
                f"{self.path}: the entry {self._root + name!r} is missing from the zip."
            )
        self._left -= entry.file_size
        if entry.compress_type != zipfile.ZIP_STORED or self._left < 0:
            # torch never compresses, so no more can be read than the file holds.
            raise DataError(
                f"{self.path}: entry {entry.filename!r} is compressed or larger than the file, "
                f"which torch.save does not write; such an entry can fill the memory."
            )
        return self._archive.read(entry)

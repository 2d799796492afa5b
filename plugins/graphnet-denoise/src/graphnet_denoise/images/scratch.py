"""Scratch: an array that lies in memory if it is small, else in a file without a name."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet_denoise.images.disk import reserve

IN_MEMORY_BYTES = 64 << 20
"""Larger arrays lie in a file."""


class Scratch:
    """An array for regions that come in any order, until a result can be encoded from its beginning.

    Args:
        folder: where a large array lies, on the disk of the result.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._small: NDArray[Any] | None = None
        self._file = None
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size <= IN_MEMORY_BYTES:
            self._small = np.zeros(shape, dtype)
        else:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
            try:
                reserve(self._file, size)
            except OSError:
                self._file.close()
                raise

    @contextlib.contextmanager
    def opened(self) -> Iterator[NDArray[Any]]:
        """Give the `with` block the array.

        A large one is mapped only in the block: what a process has mapped counts as its memory.
        """
        if self._small is not None:
            yield self._small
        else:
            assert self._file is not None
            yield np.memmap(self._file, self.dtype, "r+", 0, self.shape)

    def close(self) -> None:
        """Delete the array."""
        self._small = None
        if self._file is not None:
            self._file.close()

"""Disk: the bytes of a file are taken before they are mapped into memory, and copied from file to file."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_NOT_THERE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_COPIED = 1 << 20  # so many bytes at a time


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a file that stay in the file until they are copied.

    Args:
        path: the file.
        start: the first byte.
        end: the byte behind the last one.
    """

    path: Path
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """The number of bytes."""
        return self.end - self.start

    @classmethod
    def rest(cls, path: Path, start: int) -> Stretch:
        """All bytes of a file from this one on."""
        return cls(path, start, max(start, path.stat().st_size))


Pieces = Sequence[bytes | Stretch]
"""Bytes that follow one another in a file."""


def write_pieces(file: IO[bytes], pieces: Pieces) -> None:
    """Write the pieces, of which those of another file never lie in memory as a whole."""
    for piece in pieces:
        if isinstance(piece, bytes):
            file.write(piece)
            continue
        with piece.path.open("rb") as source:
            source.seek(piece.start)
            left = piece.size_bytes
            while left and (part := source.read(min(left, _COPIED))):
                file.write(part)
                left -= len(part)
            if left:
                raise ValueError(f"{piece.path} lost {left} bytes while it was copied")


def reserve(file: IO[bytes], size_bytes: int) -> None:
    """Make a file of this size at least, all bytes of which have their place on the disk; new ones are 0.

    A file that only says its size has no place for its bytes yet. If the disk is full when such a byte is
    written through a mapping, the system ends the process; here it is an OSError, which can be reported.
    """
    file.flush()
    if sys.platform == "linux":
        try:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
            return
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
    _fill(file, size_bytes)


def _fill(file: IO[bytes], size_bytes: int) -> None:
    """Write the file's own bytes again, since they may have no place yet either, and zeros behind its end."""
    place = 0
    while place < size_bytes:
        file.seek(place)
        part = file.read(min(_COPIED, size_bytes - place))
        file.seek(place)
        file.write(part or bytes(min(_COPIED, size_bytes - place)))
        place = file.tell()
    file.flush()

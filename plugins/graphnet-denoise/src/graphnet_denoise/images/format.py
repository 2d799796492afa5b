"""Format: a kind of image file, which a plugin can add."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from graphnet.errors import DataError
from graphnet_denoise.images.file import ImageFile, ImageSink

HEAD_BYTES = 4096
"""So many bytes of a file are read to find out its format."""


class Format(ABC):
    """One kind of image file: how it is recognised, opened and written.

    Another distribution adds one by the hook `graphnet_denoise_formats`.
    """

    name: ClassVar[str]
    """The name, such as "tiff"."""
    title: ClassVar[str]
    """What messages call such a file, such as "a TIFF"."""
    suffixes: ClassVar[tuple[str, ...]]
    """The endings of its names, in lower case; the first one is given to new files."""
    read_only: ClassVar[bool] = False
    """Whether such files are only read, so that a result needs another format."""
    folder: ClassVar[bool] = False
    """Whether such an image is a folder, not a file."""

    def writes_parts(self, source: ImageFile) -> bool:
        """Whether a result for `source` goes to the disk part by part.

        Otherwise, as here, all pixels stay in memory until the file is encoded.
        """
        return False

    @abstractmethod
    def matches(self, path: Path, head: bytes) -> bool:
        """Whether the file is of this kind, by its first bytes or, if they say nothing, by its name."""

    @abstractmethod
    def open(self, path: Path) -> ImageFile:
        """Open a file and read its header."""

    def create(self, target: Path, source: ImageFile, *, name: Path, history: str) -> ImageSink:
        """Start a result that has the axes and metadata of `source`.

        Args:
            target: the temporary file to write, or the folder, which exists and is empty.
            source: the open file whose pixels were changed.
            name: the name that the result will get, for messages.
            history: what was done to the pixels, for formats that keep a history.
        """
        raise DataError(
            f"{name}: {self.title} can be read, but not written. Give a name that ends in .tif"
        )

"""Files: a file is written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from graphnet.errors import WriteError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give the `with` block an empty temporary file, which replaces the file at `path` afterwards.

    When the block ends, the temporary file is flushed to the disk and renamed to `path`. When the block
    raises, the temporary file is deleted and the file at `path` stays as it was.

    Args:
        path: the file to write.

    Returns:
        The path of the temporary file, in the same folder; the block writes to it.

    Raises:
        WriteError: the folder does not exist, may not be written to, or the disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder, "a.txt")) as temporary:
    ...         _ = temporary.write_bytes(b"whole")
    ...     print([(entry.name, entry.read_bytes()) for entry in Path(folder).iterdir()])
    [('a.txt', b'whole')]
    """
    # Not by tempfile: its files are readable by their owner only (0600), and a rename would keep that.
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.tmp"
    try:
        try:
            temporary.open("xb").close()
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):  # it was renamed, or could not be made
                temporary.unlink()
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}). No file was changed; give a path in "
            f"an existing folder that you may write to, on a disk with free space."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all.

    Raises:
        WriteError: the file cannot be written; an older file at `path` is unchanged.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

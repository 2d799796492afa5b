"""Files: a file is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from graphnet.errors import WriteError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path` that takes the place of `path` when the block ends well.

    The file is flushed to the disk and then renamed. When the block raises, it is removed, and the file at
    `path` stays as it was.

    Args:
        path: the file to write.

    Returns:
        The path of the temporary file; the block writes to it.

    Raises:
        WriteError: the system refuses something: there is no such folder, no permission, a full disk.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder, "a.txt")) as temporary:
    ...         _ = temporary.write_bytes(b"whole")
    ...     print([(entry.name, entry.read_bytes()) for entry in Path(folder).iterdir()])
    [('a.txt', b'whole')]
    """
    # Opened by hand, since tempfile's files are private (0600) and a rename would keep that.
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.tmp"
    try:
        try:
            temporary.open("xb").close()
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):  # it was renamed, or never made
                temporary.unlink()
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}). Nothing there was changed; "
            f"give a place in an existing folder that you may write to and that has room left."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, whole or not at all.

    Raises:
        WriteError: the file cannot be written; an old one is unchanged.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

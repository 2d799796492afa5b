"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphnet.errors import DataError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of `path` when the block ends well.

    It is written beside `path`, flushed to the disk and renamed; when the block raises, it is
    removed and what stood at `path` stays as it was. Raises DataError, naming `path`, for
    everything that the system refuses: no such folder, no permission, a full disk.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as file:
    ...         _ = file.write(b"whole")
    ...     print([(entry.name, entry.read_bytes()) for entry in Path(folder).iterdir()])
    [('a.txt', b'whole')]
    """
    # Opened by hand, since tempfile's files are private (0600) and a rename would keep that.
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.tmp"
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # renamed, or never made
                temporary.unlink()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Nothing there was changed; "
            f"give a place in an existing folder that you may write to and that has room left."
        ) from error

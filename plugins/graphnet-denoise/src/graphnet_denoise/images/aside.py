"""A folder is written aside and renamed at the end, as graphnet's atomic_write does for a file."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from graphnet.errors import WriteError


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give the `with` block the path of a new folder, which replaces the folder at `path` afterwards.

    When the block raises, the new folder is deleted and the one at `path` stays as it was.

    Raises WriteError if there is a file at `path`, or the folder cannot be written.
    """
    stem = f".{path.name[:40]}.{secrets.token_hex(4)}"
    temporary, old = path.parent / f"{stem}.tmp", path.parent / f"{stem}.old"
    try:
        try:
            temporary.mkdir()
            yield temporary
            if path.is_dir() and not path.is_symlink():
                path.replace(old)  # a folder that is not empty cannot be replaced in one step
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists() and not path.exists():
                old.replace(path)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}). Nothing was changed; give a path in an "
            f"existing folder that you may write to, on a disk with free space."
        ) from error

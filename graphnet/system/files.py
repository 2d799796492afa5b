"""Files and folders that are written completely or not at all, also if the process is killed meanwhile.

Something new is written under a temporary name beside its target, flushed to the disk, and renamed. A process
that is killed leaves the temporary name behind; `sweep` deletes it later. As long as its process lives, a
temporary file is locked, and `sweep` leaves it alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphnet.errors import WriteError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted, nor renamed
    fcntl = None  # type: ignore[assignment]

_OLD = ".old"
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(tmp|old)", re.DOTALL)


@contextlib.contextmanager
def atomic_write(path: Path, *, older: Sequence[Path] = ()) -> Iterator[Path]:
    """Give the `with` block an empty temporary file, which replaces the file at `path` afterwards.

    When the block ends, the temporary file is flushed to the disk and renamed to `path`. When the block
    raises, the temporary file is deleted and the file at `path` stays as it was.

    Args:
        path: the file to write.
        older: paths in the same folder, under which the files before this one are kept: the first is for
            the file that is at `path` now, the second for the one at the first, and so on.

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
    with _told(path), _locked(path, folder=False) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        for before, name in reversed([*itertools.pairwise((path, *older))]):
            if before.exists():
                before.replace(name)
        temporary.replace(path)
        _flush(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give the `with` block a new folder, which replaces the folder at `path` afterwards.

    When the block raises, the new folder is deleted and the one at `path` stays as it was.

    Args:
        path: the folder to write.

    Returns:
        The path of the temporary folder; the block writes into it.

    Raises:
        WriteError: a file is at `path`, or the folder cannot be written.
    """
    with _told(path), temporary_folder(path) as temporary:
        yield temporary
        getattr(os, "sync", lambda: None)()  # the files in it; Windows has no such call
        old = temporary.with_name(f".{path.name}.{_number(temporary)}{_OLD}")
        try:
            if path.is_dir() and not path.is_symlink():
                path.replace(old)  # a folder that is not empty cannot be replaced in one step
            temporary.replace(path)
        finally:
            _restore(old)
        _flush(path.parent)


def temporary_folder(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Give the `with` block a new temporary folder beside `path`; it is locked, and deleted afterwards.

    Raises OSError if it cannot be made.
    """
    return _locked(path, folder=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all.

    Raises:
        WriteError: the file cannot be written; an older file at `path` is unchanged.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sweep(folder: Path) -> None:
    """Delete the temporary files and folders that killed processes have left in a folder.

    A folder that was being replaced when its process was killed gets its name back.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     folder.joinpath(".a.txt.0123abcd.tmp").touch()
    ...     with atomic_write(folder / "b.txt"):
    ...         sweep(folder)
    ...     print(*(entry.name for entry in folder.iterdir()))
    b.txt
    """
    with contextlib.suppress(OSError):  # the folder does not exist, or may not be read
        entries = [entry for entry in folder.iterdir() if _TEMPORARY.fullmatch(entry.name)]
        in_use = {_number(entry) for entry in entries if not _abandoned(entry)}
        for entry in (one for one in entries if _number(one) not in in_use):
            if entry.suffix == _OLD:
                _restore(entry)
            else:
                _delete(entry)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}). Nothing was changed; give a path in an "
            f"existing folder that you may write to, on a disk with free space."
        ) from error


@contextlib.contextmanager
def _locked(path: Path, *, folder: bool) -> Iterator[Path]:
    """Make a temporary file or folder for `path`, lock it for the `with` block, and delete it afterwards."""
    temporary, descriptor = _make(path, folder=folder)
    try:
        yield temporary
    finally:
        _delete(temporary)  # it was renamed, or the block has raised
        _unlock(descriptor)


def _make(path: Path, *, folder: bool) -> tuple[Path, int | None]:
    """Make a temporary file or folder for `path`; return its path, and the descriptor that locks it."""
    while True:
        # Not by tempfile: its files are readable by their owner only (0600), and a rename would keep that.
        temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.tmp"
        if folder:
            temporary.mkdir()
        else:
            temporary.open("xb").close()
        with contextlib.suppress(FileNotFoundError, BlockingIOError):  # another process sweeps it
            descriptor = _lock(temporary)
            if temporary.exists():
                return temporary, descriptor
            _unlock(descriptor)


def _lock(path: Path) -> int | None:
    """Lock a file or folder until the returned descriptor is closed, or the process ends.

    Raises BlockingIOError if another process has locked it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # a file system without locks
        pass
    return descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _number(temporary: Path) -> str:
    """The random digits in a temporary name."""
    return temporary.stem.rpartition(".")[2]


def _abandoned(temporary: Path) -> bool:
    """Whether no process writes to a temporary file any more."""
    try:
        _unlock(_lock(temporary))
    except OSError:
        return False
    return True


def _restore(old: Path) -> None:
    """Give a folder that was being replaced its name back, or delete it if the new one has the name."""
    match = _TEMPORARY.fullmatch(old.name)
    assert match is not None
    target = old.with_name(match[1])
    if old.exists() and not target.exists():
        old.replace(target)
    _delete(old)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _flush(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

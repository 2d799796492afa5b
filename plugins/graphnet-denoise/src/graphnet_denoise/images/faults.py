"""Faults of image files, in words: whatever a decoder raises becomes a DataError that names the file."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from graphnet.errors import DataError, GraphnetError, WriteError
from graphnet.system import bytes_text, machine_memory

# tifffile reports odd metadata by logging, which Python prints if nobody listens.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


_OF_WRONG_OFFSETS = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)
"""The system's errors for places outside a file, which a damaged header may name."""

_OF_DECODERS = (
    r"(PIL|astropy|imagecodecs|mrcfile|numpy|rawpy|tifffile|zarr|graphnet_denoise\.images)(\.|$)"
)


class _Quiet:
    """Decoders' warnings are off while any thread is in this block; catch_warnings is for one thread only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=_OF_DECODERS)
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn every error of a decoder into a DataError; `kind` is what the file is read as, such as "a PNG"."""
    try:
        with _QUIET:  # remarks on odd metadata concern nobody
            yield
    except GraphnetError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except Exception as error:  # a decoder of damaged data may raise anything
        raise _unread(path, kind, error) from error


def _unread(path: Path, kind: str, error: Exception) -> DataError:
    """The error of a file that needs too much memory, that the system does not give, or that is damaged."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return DataError(
            f"{path}: the image needs more memory than there is. Cut it into parts, or save it in a format "
            f"that can be read in parts, such as TIFF."
        )
    if number is not None and number not in _OF_WRONG_OFFSETS:
        return DataError(
            f"{path}: cannot be read ({_reason(error)}). Check that you may read it and that its disk works, "
            f"then try again."
        )
    early = isinstance(error, struct.error | IndexError | EOFError)
    return DataError(
        f"{path}: cannot be read as {kind} ({'it ends too early' if early else _reason(error)}). The file is "
        f"damaged or truncated; replace or remove it."
    )


@contextlib.contextmanager
def writing(path: Path, kind: str) -> Iterator[None]:
    """Turn every error of an encoder but OSError, which atomic_write knows, into a WriteError."""
    try:
        with _QUIET:
            yield
    except (GraphnetError, OSError):
        raise
    except Exception as error:  # an encoder may raise anything
        other = ".png" if path.suffix.lower() in (".tif", ".tiff") else ".tif"
        raise WriteError(
            f"{path}: cannot be written as {kind} ({_reason(error)}). No file was changed; give a name with "
            f"another ending, such as {other}"
        ) from error


def unsupported(path: Path, expected: str, found: str, remedy: str) -> DataError:
    """The error of a healthy file of a kind that cannot be read."""
    return DataError(f"{path}: expected {expected}, found {found}. {remedy}")


def load(module: str, *, extra: str, path: Path) -> ModuleType:
    """Import a library that comes with an extra; raises DataError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{path}: this format needs the library {module.partition('.')[0]}. Install it with: "
            f"python -m pip install 'graphnet-denoise[{extra}]'"
        ) from error


def check_memory(size_bytes: int, path: Path) -> None:
    """Raise an error before an image of so many bytes is decoded, if the machine or the file has too few.

    Raises:
        MemoryError: the machine has less memory.
        ValueError: the file is too small for such an image.
    """
    machine = machine_memory()
    if machine is not None and size_bytes > machine:
        raise MemoryError
    check_ratio(size_bytes, path)


_BOMB_BYTES = 128 << 20
_MOST_RATIO = 2_000  # decoded bytes for one of the file; deflate reaches 1,032


def check_ratio(size_bytes: int, path: Path) -> None:
    """Raise ValueError if a file of a few bytes states a large image, which only fills the memory."""
    stored = path.stat().st_size
    if size_bytes > max(_BOMB_BYTES, _MOST_RATIO * stored):
        raise ValueError(f"{stored} bytes cannot hold an image of {bytes_text(size_bytes)}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__

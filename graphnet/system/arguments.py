"""Arguments: what a caller gives is of the right kind, or an error says what was expected."""

from __future__ import annotations

import contextlib
import os
from operator import index
from pathlib import Path

from graphnet.errors import InputError, shown


def require(value: object, kind: type | tuple[type, ...], where: str, expected: str) -> None:
    """Raise InputError unless an argument is of a kind. True and False are no numbers.

    >>> require("10", int, "rewind: steps_done", "a number of steps")
    Traceback (most recent call last):
    graphnet.errors.InputError: rewind: steps_done: expected a number of steps, got a str.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        found = "None" if value is None else f"a {type(value).__name__}"
        raise InputError(f"{where}: expected {expected}, got {found}.")


def as_seed(seed: object, where: str) -> int:
    """A seed of random numbers: an integer of at most 63 bits. Raises InputError for anything else.

    >>> as_seed(7, "Model")
    7
    """
    try:
        number = None if isinstance(seed, bool) else index(seed)  # type: ignore[arg-type]  # or TypeError
    except TypeError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise InputError(
            f"{where}: seed: expected an integer of at most 63 bits, got {shown(seed)}."
        )
    return number


def as_path(path: object, where: str) -> Path:
    """A path that a caller gave. Raises InputError unless it is one that the system can have.

    >>> as_path("models/unet.yaml", "load").suffix
    '.yaml'
    """
    require(path, (str, os.PathLike), where, "the path of a file")
    try:
        found = Path(path)  # type: ignore[arg-type]  # just checked
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            found.lstat()
    except (
        TypeError,
        ValueError,
        OSError,
    ) as error:  # bytes; the character NUL; a name that is too long
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{where}: expected the path of a file, got {shown(path)}: {reason}."
        ) from None
    return found

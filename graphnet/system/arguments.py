"""Arguments: functions that check an argument of a call; their errors say what they expected."""

from __future__ import annotations

import errno
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
    """A seed of random numbers. Raises InputError unless it is an integer from -2**63 to 2**63 - 1.

    >>> as_seed(7, "Model")
    7
    """
    number = _integer(seed)
    if number is None or not -(2**63) <= number < 2**63:
        raise InputError(
            f"{where}: seed: expected an integer from -2**63 to 2**63 - 1, got {shown(seed)}."
        )
    return number


def as_count(count: object, where: str) -> int:
    """A number of things. Raises InputError unless it is an integer from 0 to 2**63 - 1.

    >>> as_count(3, "rewind: steps_done")
    3
    """
    number = _integer(count)
    if number is None or not 0 <= number < 2**63:
        raise InputError(f"{where}: expected an integer of 0 or more, got {shown(count)}.")
    return number


def _integer(value: object) -> int | None:
    """The integer that a value is, also one of numpy's; None for True, False and everything else."""
    try:
        return None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]  # or TypeError
    except TypeError:
        return None


def as_path(path: object, where: str) -> Path:
    """A path that a caller gave. Raises InputError unless the system can have such a path.

    >>> as_path("models/unet.yaml", "load").suffix
    '.yaml'
    """
    require(path, (str, os.PathLike), where, "a path")
    try:
        found = Path(path)  # type: ignore[arg-type]  # just checked
        found.lstat()
    except (TypeError, ValueError) as error:  # bytes, or the character NUL
        raise InputError(f"{where}: expected a path, got {shown(path)}: {error}.") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{where}: the path {shown(path)} is too long.") from None
    return found

"""Measured: keep the measured numbers of a machine or a network in a file of JSON, and read them again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from graphnet.errors import MachineError
from graphnet.system import write_text

T = TypeVar("T")


def file_name(kind: str, name: str) -> str:
    """The name of the file for the numbers of a kind of thing with this name."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{kind}-{slug}.json"


def save_numbers(numbers: Any, path: Path) -> None:
    """Write a dataclass of numbers in one step: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(path, json.dumps(asdict(numbers), indent=2) + "\n")


def load_numbers(
    path: Path, kind: type[T], fits: Callable[[T], bool], *, what: str, command: str
) -> T | None:
    """Read a dataclass of numbers.

    Args:
        path: the file.
        kind: the dataclass.
        fits: whether numbers can be those of a measurement.
        what: what they are the numbers of, for an error.
        command: the command that measures them, for an error.

    Returns:
        The numbers; None if the file does not exist.

    Raises:
        MachineError: the file has other content.
    """
    found: T | None = None
    try:
        made = kind(**json.loads(path.read_text()))
        found = made if fits(made) else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        found = None
    if found is None:
        raise MachineError(
            f"{path}: expected the numbers of a measured {what}, found something else. "
            f"`{command}` measures again and replaces it."
        )
    return found

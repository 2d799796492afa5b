"""Author: describe an error that an author's code raised, with the line of that code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import pydantic
import torch

import graphnet

_GRAPHNET = Path(graphnet.__file__).parent
_BUILTIN = _GRAPHNET / "builtin"
_LIBRARIES = tuple(Path(str(module.__file__)).parent for module in (torch, pydantic))
_PYTHON = Path(sysconfig.get_path("stdlib"))
_INSTALLED = ("site-packages", "dist-packages")


def raised(error: BaseException) -> str:
    """Describe an error: "AttributeError: no 'sahpe' (acme/layers.py:12, in forward)"."""
    place = where(error)
    return f"{type(error).__name__}: {error}{f' ({place})' if place else ''}"


def where(error: BaseException) -> str:
    """Return the last line of the traceback in the author's code; an empty text if there is none."""
    while error.__cause__ is not None:
        error = error.__cause__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_authors(Path(frame.filename)):
            return f"{frame.filename}:{frame.lineno}, in {frame.name}"
    return ""


def _is_authors(file: Path) -> bool:
    if not file.is_file() or any(file.is_relative_to(folder) for folder in _LIBRARIES):
        return False
    if file.is_relative_to(_GRAPHNET):
        return file.is_relative_to(_BUILTIN)
    installed = any(part in _INSTALLED for part in file.parts)
    return installed or not file.is_relative_to(_PYTHON)

"""Author: describe an error that an author's code raised, with the lines of that code."""

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
    frames = _frames(error)
    return f"{frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""


def with_lines(message: str, error: BaseException) -> str:
    """Put the author's lines of an error's traceback below a message, as Python prints them."""
    frames = _frames(error)
    if not frames:
        return message
    lines = "".join(traceback.StackSummary.from_list(frames).format())
    return f"{message}\n{lines.rstrip()}"


def _first(error: BaseException) -> BaseException:
    """Return the error that the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the author's frames, those of the error from which the others were raised."""
    frames = traceback.extract_tb(_first(error).__traceback__)
    return [frame for frame in frames if _is_authors(Path(frame.filename))]


def _is_authors(file: Path) -> bool:
    if not file.is_file() or any(file.is_relative_to(folder) for folder in _LIBRARIES):
        return False
    if file.is_relative_to(_GRAPHNET):
        return file.is_relative_to(_BUILTIN)
    installed = any(part in _INSTALLED for part in file.parts)
    return installed or not file.is_relative_to(_PYTHON)

"""Wording: what is said of many images in one line, and what is wrong with one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphnet.errors import GraphnetError

_NAMED = 3  # so many of many are named


def images_text(count: int) -> str:
    """Say a number of images.

    >>> images_text(1), images_text(2000)
    ('1 image', '2,000 images')
    """
    return "1 image" if count == 1 else f"{count:,} images"


def some(names: Sequence[object], others: str = "more", *, most: int = _NAMED) -> str:
    """Name the first ones, and say how many `others` there are.

    >>> some("abcde"), some("ab")
    ('a, b, c and 2 more', 'a, b')
    """
    more = f" and {len(names) - most:,} {others}" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def not_done(failed: Sequence[Path], total: int, verb: str) -> str:
    """Say which images failed, after a line about each of them.

    >>> not_done([Path("a.png")], 3, "denoised")
    '1 image of 3 not denoised: a.png'
    """
    return f"{images_text(len(failed))} of {total:,} not {verb}: {some(failed, 'more, see above')}"


def error_text(error: BaseException, file: Path, *others: Path) -> str:
    """Say what is wrong with an image, with the name of its file, or of one of the `others`.

    >>> error_text(GraphnetError("it has no pixels."), Path("a.png"))
    'a.png: it has no pixels.'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or file}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"{file}: out of memory. Allow less with --memory, or take a smaller image."
    text = str(error)
    if not isinstance(error, GraphnetError):
        text = (
            f"unexpected {type(error).__name__}: {text}. This is a fault in graphnet or a library."
        )
    return text if any(str(name) in text for name in (file, *others)) else f"{file}: {text}"

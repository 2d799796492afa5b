"""Garbage collection: Python's collector of cycles is switched off where many lasting objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_gc() -> Iterator[None]:
    """Switch Python's garbage collector off inside a `with` block.

    A full collection would visit every object that torch has imported. If the collector was off before the
    block, it stays off.

    >>> with without_gc():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

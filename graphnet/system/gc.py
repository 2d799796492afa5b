"""Garbage collection: Python's collector of cycles is switched off where many lasting objects are made."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Inside:
    """How many `with` blocks run now, in all threads, and whether the collector was on before the first."""

    lock = threading.Lock()
    count = 0
    was_on = False


@contextmanager
def without_gc() -> Iterator[None]:
    """Switch Python's garbage collector off inside a `with` block.

    A full collection would visit every object that torch has imported. If the collector was off before the
    block, it stays off. The collector belongs to the process: it is on again when the last of several blocks
    ends, in whichever thread.

    >>> with without_gc():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    with _Inside.lock:
        if _Inside.count == 0:
            _Inside.was_on = gc.isenabled()
            gc.disable()
        _Inside.count += 1
    try:
        yield
    finally:
        with _Inside.lock:
            _Inside.count -= 1
            if _Inside.count == 0 and _Inside.was_on:
                gc.enable()

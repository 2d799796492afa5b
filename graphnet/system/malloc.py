"""Heap: let the C library keep what a plan frees for the next run, in place of the system's clean pages.

A plan frees megabytes that the next step takes again. glibc hands large pieces back to the system at once,
and every page that comes from there is cleared first: a third of a convolution's time on two cores.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = (1 << 31) - 1  # the largest that mallopt takes


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library, once for this process; whether it was told.

    It is glibc that is told, unless the environment sets MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_:
    then that stands.
    """
    decided = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ)
    if sys.platform != "linux" or decided:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))

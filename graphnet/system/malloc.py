"""Malloc: the C library keeps the memory that a step frees, so that the next step can use it again.

A step frees megabytes that the next step allocates again. By default glibc returns large blocks to the
operating system at once, which clears every page before it hands the page out again: on two cores this
took a third of a convolution's time.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = (1 << 31) - 1  # the largest value that mallopt accepts
_LARGE_BYTES = 1 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Make glibc keep freed memory, for the rest of this process.

    Nothing changes if `return_freed_memory` was called before, if the environment sets
    MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_, or if the C library is not glibc.

    Returns:
        Whether glibc accepted the setting.
    """
    if return_freed_memory.cache_info().currsize:
        return False
    return _set({_M_MMAP_THRESHOLD: _KEPT_BYTES, _M_TRIM_THRESHOLD: _KEPT_BYTES})


@functools.cache
def return_freed_memory() -> bool:
    """Make glibc return each large block to the system when it is freed, for the rest of this process.

    Then the process takes what its tensors take, and hardly more, for a third to a half more time. As for
    `keep_freed_memory`, nothing changes if the environment decides or the C library is not glibc.
    A program that calls this first keeps it so: graphnet's own calls of `keep_freed_memory` do nothing then.

    Returns:
        Whether glibc accepted the setting.
    """
    return _set({_M_MMAP_THRESHOLD: _LARGE_BYTES, _M_TRIM_THRESHOLD: _LARGE_BYTES})


def _set(options: dict[int, int]) -> bool:
    user_settings = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ)
    if sys.platform != "linux" or user_settings:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl, another C library, has no mallopt
    return mallopt is not None and all(mallopt(*option) for option in options.items())

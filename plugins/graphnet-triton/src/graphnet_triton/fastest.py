"""Fastest: which of several ways to compute the same takes the least time on this GPU.

It is measured once, and kept in graphnet's cache, so later runs choose the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import triton

from graphnet.errors import CacheError
from graphnet.system import Cache, open_cache

Way = Callable[[], object]
Timer = Callable[[Way], float]
_ROUNDS, _CALLS = 5, 10


def fastest(ways: Mapping[str, Way], *, key: Mapping[str, Any], timer: Timer | None = None) -> str:
    """Return the name of the fastest way.

    Several processes of one training need equal plans, but could measure different things. So they take
    the first way.

    Args:
        ways: each computes the same, on tensors of its own.
        key: plain data that identifies what is computed.
        timer: measures a way in seconds; by default with CUDA events.
    """
    first = next(iter(ways))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return first
    cache, whole = _cache(), {**key, "ways": [*ways], **_machine()}
    known = None if cache is None else cache.choice(whole)
    if isinstance(known, str) and known in ways:
        return known
    measure = timer or _seconds
    for way in ways.values():  # compiled, and warm
        measure(way)
    taken = {name: min(measure(way) for _ in range(_ROUNDS)) for name, way in ways.items()}
    found = min(taken, key=lambda name: taken[name])
    if cache is not None:
        cache.record_choice(whole, found)
    return found


def _cache() -> Cache | None:
    """graphnet's cache; None if its folder cannot be used."""
    try:
        return open_cache()
    except CacheError:
        return None


def _machine() -> dict[str, Any]:
    """What the times depend on besides what is computed."""
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "allow_tf32": torch.backends.cudnn.allow_tf32,
    }


def _seconds(way: Way) -> float:
    """The seconds of one call, on the current CUDA device."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    began.record()
    for _ in range(_CALLS):
        way()
    ended.record()
    torch.cuda.synchronize()
    return float(began.elapsed_time(ended)) / 1e3 / _CALLS

"""Fastest: which of several ways to compute the same takes the least time on this GPU.

It is measured only if `torch.backends.cudnn.benchmark` is True, by which torch also lets cuDNN choose its
kernels by trying them: then two runs may choose different kernels, and their results differ in the last bits.
graphnet's cache keeps the name of the fastest way, so later runs make the same choice.
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


def fastest(
    ways: Mapping[str, Callable[[], Way]], *, key: Mapping[str, Any], timer: Timer | None = None
) -> str:
    """Return the name of the fastest way; the first one if nothing may be measured, or memory is short.

    Several processes of one training need equal plans, but could measure different things. So they take
    the first way.

    Args:
        ways: each makes its tensors, and returns a function that computes the same as the others.
        key: plain data, which JSON can hold; equal keys stand for the same computation.
        timer: measures a function in seconds; by default with CUDA events.
    """
    first = next(iter(ways))
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if together or not torch.backends.cudnn.benchmark:
        return first
    cache, whole = _cache(), {**key, "ways": [*ways], **_machine()}
    known = None if cache is None else cache.choice(whole)
    if isinstance(known, str) and known in ways:
        return known
    try:
        found = _measured(ways, timer or _seconds)
    except torch.OutOfMemoryError:
        return first
    if cache is not None:
        cache.record_choice(whole, found)
    return found


def _measured(ways: Mapping[str, Callable[[], Way]], timer: Timer) -> str:
    made = {name: make() for name, make in ways.items()}
    for way in made.values():
        way()  # compiled, and warm
    taken = dict.fromkeys(made, float("inf"))
    for _ in range(_ROUNDS):
        for name, way in made.items():
            taken[name] = min(taken[name], timer(way))
    return min(taken, key=lambda name: taken[name])


def _cache() -> Cache | None:
    """graphnet's cache; None if its folder cannot be used."""
    try:
        return open_cache()
    except CacheError:
        return None


def _machine() -> dict[str, Any]:
    """The GPU, the libraries and their settings: the times depend on them too."""
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "allow_tf32": torch.backends.cudnn.allow_tf32,
    }


def _seconds(way: Way) -> float:
    """The seconds of one call on the current CUDA device, without those that Python takes to launch it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_CALLS):
            way()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    graph.replay()
    began.record()
    graph.replay()
    ended.record()
    torch.cuda.synchronize()
    return float(began.elapsed_time(ended)) / 1e3 / _CALLS

"""Measure a device: its memory bandwidth, its arithmetic throughput, and the time to launch an operator."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from graphnet.graph import Machine
from graphnet.sdk import dtype_name
from graphnet.system import device_name, synchronize

_ROUNDS = 7
_COPIED_BYTES = 128 * 2**20  # more than the caches of a CPU hold
_GPU_FACTOR = 8  # a GPU copies more bytes, so that synchronization takes a small part of the time
_DTYPES = (torch.float32, torch.bfloat16, torch.float64)
_ENOUGH_S = 0.02  # a matrix product that takes this long is measured precisely enough
_LAUNCHES = 1000


@torch.no_grad()
def measure(
    device: torch.device, *, say: Callable[[str], None], dtypes: Sequence[torch.dtype] = ()
) -> Machine:
    """Measure a device; this takes a few seconds.

    Args:
        device: the device.
        say: called with a text before each measurement.
        dtypes: the dtypes in which matrix products are measured; by default all in which a plan can compute
            on this device.

    Returns:
        The bandwidth in bytes per second, the throughput in operations per second for each dtype, and the
        launch time in seconds.
    """
    dtypes = dtypes or (*_DTYPES, *((torch.float16,) if device.type == "cuda" else ()))
    say("memory bandwidth: a copy and a triad")
    bandwidth = _bandwidth(device)
    ceilings: dict[str, float] = {}
    for dtype in dtypes:
        say(f"{dtype_name(dtype)}: matrix products and 1x1 convolutions")
        ceilings[dtype_name(dtype)] = _ceiling(device, dtype)
    say("the cost of calling a small operator")
    return Machine(
        device=device_name(device),
        torch_version=torch.__version__,
        bandwidth=bandwidth,
        flops=ceilings,
        launch_s=_launch(device),
        measured_on=time.strftime("%Y-%m-%d"),
    )


def _times(run: Callable[[], object], device: torch.device) -> list[float]:
    """Return the seconds of each of several rounds, after one round to warm up."""
    elapsed: list[float] = []
    for _ in range(_ROUNDS + 1):
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        elapsed.append(time.perf_counter() - started)
    return elapsed[1:]


def _bandwidth(device: torch.device) -> float:
    """Return the bytes per second of a = b or of a = b + 2 c, whichever is faster."""
    count = _COPIED_BYTES // 4 * (1 if device.type == "cpu" else _GPU_FACTOR)
    a, b, c = (torch.ones(count, device=device) for _ in range(3))
    copy = 2 * a.nbytes / min(_times(lambda: a.copy_(b), device))
    triad = 3 * a.nbytes / min(_times(lambda: torch.add(b, c, alpha=2.0, out=a), device))
    return max(copy, triad)


def _ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a square matrix product or the same as a 1x1 convolution.

    The faster one counts.
    """
    size = 512
    while True:
        a, b, image = _operands(size, device, dtype)
        kernel = b.reshape(size, size, 1, 1)
        product = min(_times(partial(torch.mm, a, b), device))
        if product >= _ENOUGH_S or size >= 8192:
            break
        size *= 2

    def convolve() -> Tensor:
        y: Tensor = torch.convolution(image, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        return y

    return 2.0 * size**3 / min(product, *_times(convolve, device))


def _operands(size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    a, b = (torch.full((size, size), 0.5, device=device, dtype=dtype) for _ in range(2))
    pixels = a.reshape(1, 1, size, size).permute(0, 3, 1, 2)  # N C H W, in channels_last order
    return a, b, pixels


def _launch(device: torch.device) -> float:
    """Return the seconds that one call of a small operator takes."""
    x = torch.ones(16, device=device)

    def many() -> None:
        for _ in range(_LAUNCHES):
            torch.add(x, x)

    return statistics.median(_times(many, device)) / _LAUNCHES

"""Measure a network: the latency and the bandwidth between processes, and the share that is hidden."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from graphnet.errors import InputError
from graphnet.graph import Network
from graphnet.model import Joined
from graphnet.system import synchronize

_SIZES = tuple(4**power for power in range(6, 13))  # bytes: 4 KiB to 16 MiB
_ROUNDS = 15
_BESIDE_BYTES = 4 << 20
_MATRIX = 384


def measure_network(
    processes: Joined, device: torch.device, *, say: Callable[[str], None] = lambda text: None
) -> Network:
    """Measure the network between processes; all of them call it, and it takes a few seconds.

    Latency and bandwidth are those with which the formula of an all-reduce (graph/network.py) has the least
    relative errors for seven sizes from 4 KiB to 16 MiB.

    Args:
        processes: the processes, of which there must be two or more.
        device: where the tensors are.
        say: called with a text before each measurement.

    Raises:
        InputError: there is one process only.

    Returns:
        The same numbers in all processes.
    """
    if processes.count < 2:
        raise InputError("a network is measured between two processes or more; there is one")
    say("all-reduces of 4 KiB to 16 MiB")
    seconds = [_all_reduce_s(processes, device, size) for size in _SIZES]
    latency_s, bandwidth = _fit(seconds, processes.count)
    say("an all-reduce beside matrix products")
    return Network(
        name=f"{processes.count} processes, {torch.distributed.get_backend()} on {device.type}",
        latency_s=latency_s,
        bandwidth=bandwidth,
        hidden=_hidden(processes, device),
        measured_on=time.strftime("%Y-%m-%d"),
    )


def _fit(seconds: list[float], count: int) -> tuple[float, float]:
    """Latency and bandwidth with the least sum of squared relative errors."""
    messages = 2 * (count - 1).bit_length()
    share = 2 * (count - 1) / count
    took = torch.tensor(seconds, dtype=torch.float64)
    sizes = torch.tensor(_SIZES, dtype=torch.float64)
    terms = torch.stack((torch.full_like(sizes, messages), share * sizes), dim=1) / took[:, None]
    latency, per_byte = torch.linalg.lstsq(terms, torch.ones(len(sizes), 1).double()).solution
    return max(float(latency), 1e-7), 1.0 / max(float(per_byte), 1e-13)


def _all_reduce_s(processes: Joined, device: torch.device, size_bytes: int) -> float:
    tensor = torch.zeros(size_bytes // 4, device=device)
    return _median(processes, device, lambda: torch.distributed.all_reduce(tensor))


def _hidden(processes: Joined, device: torch.device) -> float:
    """The share of an all-reduce that matrix products of the same length hide."""
    bucket = torch.zeros(_BESIDE_BYTES // 4, device=device)
    a, b = (torch.rand(_MATRIX, _MATRIX, device=device) for _ in range(2))

    def products(times: int) -> None:
        for _ in range(times):
            torch.mm(a, b)

    exchange = _median(processes, device, lambda: torch.distributed.all_reduce(bucket))
    one = _median(processes, device, lambda: products(1))
    times = max(1, round(exchange / one))
    computing = _median(processes, device, lambda: products(times))

    def both() -> None:
        work = torch.distributed.all_reduce(bucket, async_op=True)
        products(times)
        assert work is not None
        work.wait()

    together = _median(processes, device, both)
    saved = (exchange + computing - together) / min(exchange, computing)
    return min(1.0, max(0.0, saved))


def _median(processes: Joined, device: torch.device, run: Callable[[], object]) -> float:
    """The median seconds of the slowest process over several rounds, after two to warm up."""
    found: list[float] = []
    for _ in range(_ROUNDS + 2):
        torch.distributed.barrier()
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        took_ns = int(1e9 * (time.perf_counter() - started))
        found.append(1e-9 * processes.greatest(took_ns)[0])
    return statistics.median(found[2:])

"""Time several contenders fairly: warmed up, then in turn, round after round, in one process."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of a contender, and the median over rounds of its ratio to another one."""

    name: str
    median_ms: float
    rounds_ms: tuple[float, ...]

    def ratio_to(self, other: Timing) -> float:
        """The median of the paired ratios, round by round: below 1 is faster than `other`."""
        pairs = zip(self.rounds_ms, other.rounds_ms, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    repeats: int,
    device: torch.device,
    warm_up: int = 5,
) -> dict[str, Timing]:
    """Run each contender `repeats` times in every round, the order shifting by one each round."""

    def run(function: Callable[[], object], times: int) -> float:
        _wait(device)
        start = time.perf_counter()
        for _ in range(times):
            function()
        _wait(device)
        return (time.perf_counter() - start) / times * 1e3

    for function in contenders.values():
        run(function, warm_up)
    names = list(contenders)
    measured: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                measured[name].append(run(contenders[name], repeats))
    finally:
        gc.enable()
    return {
        name: Timing(name, statistics.median(times), tuple(times))
        for name, times in measured.items()
    }


def machine(device: torch.device) -> dict[str, str]:
    """What the numbers were measured on."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    found = {
        "processor": processor,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

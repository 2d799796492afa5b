"""Time several contenders fairly: warmed up, then in turn, round after round, in one process."""

from __future__ import annotations

import gc
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from graphnet.sdk import default_registry

Run = Callable[[], object]
_SAMPLE_S = 0.01  # a sample repeats a quick function until it lasts about this long


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one contender in every round; the rounds of all contenders are paired."""

    name: str
    rounds_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.rounds_ms)

    @property
    def spread_ms(self) -> float:
        """Half the range in which the middle half of the rounds lies."""
        if len(self.rounds_ms) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds_ms, n=4, method="inclusive")
        return (high - low) / 2

    def divided(self, steps: int) -> Timing:
        """The times of one of the steps that a call does."""
        return Timing(self.name, tuple(ms / steps for ms in self.rounds_ms))

    def ratio_to(self, other: Timing) -> float:
        """The median of the paired ratios, round by round: below 1 is faster than `other`."""
        pairs = zip(self.rounds_ms, other.rounds_ms, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def interleave(
    contenders: Mapping[str, Run],
    *,
    device: torch.device,
    budget_s: float,
    rounds: tuple[int, int] = (5, 60),
) -> dict[str, Timing]:
    """Time each contender once in every round, the order shifting by one each round.

    There are as many rounds as fit into `budget_s`, at least `rounds[0]` and at most `rounds[1]`.
    Each contender must have been warmed up: nothing is compiled any more.
    """
    names = list(contenders)
    repeats = {
        name: max(1, math.ceil(_SAMPLE_S / seconds(run, 2, device)))
        for name, run in contenders.items()
    }
    started = time.perf_counter()
    for name, run in contenders.items():  # how long a round takes, and the last of the warm-up
        seconds(run, repeats[name], device)
    a_round_s = time.perf_counter() - started
    least, most = rounds
    count = min(most, max(least, int(budget_s / a_round_s)))
    measured: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(count):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                measured[name].append(1e3 * seconds(contenders[name], repeats[name], device))
    finally:
        gc.enable()
    return {name: Timing(name, tuple(times)) for name, times in measured.items()}


def seconds(run: Run, times: int, device: torch.device) -> float:
    """The mean seconds of one call, over `times` calls one after the other; on CUDA, of the device."""
    if device.type == "cuda":
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        began.record()
        for _ in range(times):
            run()
        ended.record()
        torch.cuda.synchronize(device)
        return float(began.elapsed_time(ended)) / 1e3 / times
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def settle(device: torch.device) -> None:
    """What holds for all that is measured on CUDA: it is the current device, float32 is multiplied as such,
    and cuDNN chooses its kernels by trying them."""
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def machine(device: torch.device) -> dict[str, str]:
    """What the numbers were measured on."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    found = {
        "processor": processor,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    kernels = default_registry().kernels
    found["kernels"] = " ".join(sorted({name.partition("/")[0] for name in kernels}))
    if jax := sys.modules.get("jax"):
        found["jax"] = jax.__version__
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
        found["tf32"] = "off"
    return found

"""Measure a workload: every contender warmed up, timed in turn, and its peak in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from benchmarks import contenders
from benchmarks.timing import Run, Timing, interleave, seconds
from benchmarks.workloads import Contender, Saving, Side, Unavailable, Workload
from graphnet.errors import GraphnetError

Say = Callable[[str], None]
_WARM_UP = 5
_SLOW = 4.0  # times slower than the fastest of its side: timed by its warm-up alone


@dataclass(frozen=True)
class Effort:
    """How much is measured: seconds of interleaved rounds, whether to compile, the steps of a training."""

    budget_s: float
    rounds: tuple[int, int]
    compiled: bool
    loss_steps: int


FULL = Effort(budget_s=12.0, rounds=(7, 60), compiled=True, loss_steps=200)
QUICK = Effort(budget_s=0.3, rounds=(3, 5), compiled=False, loss_steps=0)


@dataclass(frozen=True)
class Measured:
    """The times of the contenders of a workload; for those without, the reason."""

    workload: Workload
    contenders: Mapping[str, Contender]
    timings: Mapping[str, Timing]
    unavailable: Mapping[str, str]

    def fastest(
        self, side: Side, precisions: tuple[str, ...], saving: Saving | None = None
    ) -> Timing | None:
        """The fastest contender of a side in these precisions, by its median."""
        found = [
            timing
            for name, timing in self.timings.items()
            if (one := self.contenders[name]).side is side
            and one.precision in precisions
            and one.saving == saving
        ]
        return min(found, key=lambda timing: timing.median_ms, default=None)


def measure(
    workload: Workload,
    precisions: tuple[str, ...],
    *,
    device: torch.device,
    effort: Effort,
    say: Say,
) -> Measured:
    """Time the contenders of a workload that compute in these precisions."""
    found = {
        contender.name: contender
        for contender in contenders.of(workload, device)
        if contender.precision in precisions
    }
    runs: dict[str, Run] = {}
    warm: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for number, (name, contender) in enumerate(found.items(), 1):
        say(f"{workload.name}: warming up {number}/{len(found)}, {name}")
        if contender.compiled and not effort.compiled:
            unavailable[name] = "left out by --quick, which compiles nothing"
            continue
        try:
            run = contender.build()
            run()
            warm[name] = least_seconds(run, device)
            runs[name] = run
        except Exception as error:  # whatever a compiler or a library raises is its reason
            unavailable[name] = reason(error)
    slow = {
        name
        for name, run in runs.items()
        if (limit := _SLOW * min(warm[one] for one in warm if found[one].side is found[name].side))
        and warm[name] > limit
        and least_seconds(run, device) > limit  # once more: it may have been disturbed
    }
    quick = {name: run for name, run in runs.items() if name not in slow}
    say(f"{workload.name}: timing {len(quick)} contenders in turn")
    timings = interleave(quick, device=device, budget_s=effort.budget_s, rounds=effort.rounds)
    timings |= {name: Timing(name, (1e3 * warm[name],)) for name in slow}
    return Measured(workload, found, timings, unavailable)


def least_seconds(run: Run, device: torch.device) -> float:
    """The quickest of several calls, to warm up."""
    return min(seconds(run, 1, device) for _ in range(_WARM_UP))


def reason(error: Exception) -> str:
    """An error in one line."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, (Unavailable, GraphnetError)):
        return first
    return f"{type(error).__name__}: {first}"[:300]


def peak_bytes(workload: Workload, contender: str, device: torch.device) -> int:
    """The peak of a contender's tensors in a process of its own. Raises Unavailable if that fails."""
    command = [sys.executable, "-m", "benchmarks.memory", workload.name, contender, str(device)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Unavailable(f"the process for its memory ended with {done.returncode}: {last[0]}")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith('{"peak_bytes"')]
    return int(json.loads(line)["peak_bytes"])

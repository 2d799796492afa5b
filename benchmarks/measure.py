"""Measure a workload: every contender warmed up, timed in turn, and its peak in a process of its own."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    """How much is measured: seconds of interleaved rounds, whether to compile, the steps of a training and
    how many of those, and the seconds in which the contenders of a workload are to be built."""

    budget_s: float
    rounds: tuple[int, int]
    compiled: bool
    loss_steps: int
    loss_runs: int = 8
    building_s: float = 3600.0


FULL = Effort(budget_s=12.0, rounds=(7, 60), compiled=True, loss_steps=200)
BRIEF = Effort(  # on a GPU, where all of it ends within minutes
    budget_s=2.0, rounds=(7, 60), compiled=True, loss_steps=200, loss_runs=4, building_s=40.0
)
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
    """Time the contenders of a workload that compute in these precisions.

    What compiles is built last, in the lowest precision first: that is left out if the time is over.
    """
    wanted = [one for one in contenders.of(workload, device) if one.precision in precisions]
    wanted.sort(key=lambda one: (one.compiled, -precisions.index(one.precision)))
    found = {contender.name: contender for contender in wanted}
    runs: dict[str, Run] = {}
    warm: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    deadline = time.perf_counter() + effort.building_s
    for number, (name, contender) in enumerate(found.items(), 1):
        say(f"{workload.name}: warming up {number}/{len(found)}, {name}")
        if contender.compiled and not effort.compiled:
            unavailable[name] = "left out by --quick, which compiles nothing"
            continue
        try:
            with at_most(deadline - time.perf_counter()):
                try:
                    run = ready(contender)
                except torch.OutOfMemoryError:  # it is not to lose for what others hold
                    keep(runs, best_of_each_side(runs, warm, found))
                    run = ready(contender)
                warm[name] = least_seconds(run, device) / contender.steps
            runs[name] = run
        except Exception as error:  # whatever a compiler or a library raises is its reason
            unavailable[name] = reason(error)
        keep(runs, quick_enough(runs, warm, found, device))
    say(f"{workload.name}: timing {len(runs)} contenders in turn")
    timings: dict[str, Timing] = {}
    if runs:
        calls = interleave(runs, device=device, budget_s=effort.budget_s, rounds=effort.rounds)
        timings = {name: timing.divided(found[name].steps) for name, timing in calls.items()}
    timings |= {name: Timing(name, (1e3 * warm[name],)) for name in warm if name not in runs}
    keep(runs, set())
    for name, timing in timings.items():  # there even if what follows is cut off
        say(f"{workload.name}: {name}: {timing.median_ms:.4g} ms")
    return Measured(workload, found, timings, unavailable)


def ready(contender: Contender) -> Run:
    """A contender after its first call."""
    run = contender.build()
    run()
    return run


def quick_enough(
    runs: Mapping[str, Run],
    warm: Mapping[str, float],
    found: Mapping[str, Contender],
    device: torch.device,
) -> set[str]:
    """Those not much slower than the fastest of their side so far; the others had their time."""
    fastest: dict[Side, float] = {}
    for name, taken in warm.items():
        fastest[found[name].side] = min(taken, fastest.get(found[name].side, taken))
    return {
        name
        for name, run in runs.items()
        if warm[name] <= (limit := _SLOW * fastest[found[name].side])
        or least_seconds(run, device) / found[name].steps
        <= limit  # once more: it may have been disturbed
    }


def best_of_each_side(
    runs: Mapping[str, Run], warm: Mapping[str, float], found: Mapping[str, Contender]
) -> set[str]:
    best = {found[name].side: name for name in sorted(runs, key=lambda one: -warm[one])}
    return set(best.values())


def keep(runs: dict[str, Run], names: set[str]) -> None:
    """Drop the other runs, and the memory that they hold."""
    for name in runs.keys() - names:
        del runs[name]
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what takes longer; again each second, as a compiler may swallow one."""

    def late(*_: object) -> None:
        raise TimeoutError("the time for building contenders was over")

    if seconds <= 0:
        late()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


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

"""Start: seconds from the start of a process to the end of its first training step, and to steady state.

The paper's network, batch 32, float32, on the CPU; each side as most people write it, in processes of
its own. Cold: Inductor's and graphnet's cache folders are empty. Warm: a process like this one has filled
them. Steady state begins with the first step that takes at most a tenth longer than the last ones do, as
most of the ten from there on.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.measure import Say
from benchmarks.networks import PAPER
from benchmarks.workloads import Unavailable

_WINDOW = 10
_LAST = 50


@dataclass(frozen=True)
class Starter:
    """A process to be started; it goes on for `going_on_s` after its first step."""

    name: str
    module: str
    arguments: tuple[str, ...]
    going_on_s: float
    compiled: bool


@dataclass(frozen=True)
class Start:
    """Seconds from process start, medians over processes."""

    name: str
    first_s: float
    steady_s: float
    steady_step_ms: float


def _starters() -> tuple[Starter, ...]:
    torch, mine, file = (
        "benchmarks.starts.torch_start",
        "benchmarks.starts.graphnet_start",
        PAPER.file,
    )
    return (
        Starter("graphnet: eager", mine, (str(file), "eager"), 2.0, compiled=False),
        Starter("graphnet: inductor", mine, (str(file), "inductor"), 2.0, compiled=True),
        Starter("graphnet: auto", mine, (str(file), "auto"), 30.0, compiled=True),
        Starter("torch: eager", torch, ("eager",), 2.0, compiled=False),
        Starter("torch: compile", torch, ("compile",), 2.0, compiled=True),
    )


def measure(*, rounds: int, compiled: bool, say: Say) -> tuple[list[Start], dict[str, str]]:
    """The starts of every side, cold and warm; and why some could not be measured.

    What compiles is started once cold and once warm. The rest keeps no cache: it is started `rounds`
    times in turn, the first time unmeasured.
    """
    plain = [starter for starter in _starters() if not starter.compiled]
    found: dict[str, list[Start]] = {starter.name: [] for starter in plain}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for starter in plain:
                say(f"start {number}/{rounds}: {starter.name}")
                start = _start(starter, starter.name, folder)
                if number:
                    found[starter.name].append(start)
    starts = [_median(several) for several in found.values()]
    unavailable: dict[str, str] = {}
    for starter in _starters():
        if starter.compiled and not compiled:
            unavailable[starter.name] = "left out by --quick, which compiles nothing"
        elif starter.compiled:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    for cache in ("cold", "warm"):
                        say(f"start: {starter.name}, {cache} caches")
                        starts.append(_start(starter, f"{starter.name}, {cache} caches", folder))
                except Unavailable as error:
                    unavailable[starter.name] = str(error)
    return starts, unavailable


def _start(starter: Starter, name: str, folder: str) -> Start:
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "GRAPHNET_CACHE": f"{folder}/graphnet",
    }
    arguments = [*starter.arguments, str(starter.going_on_s)]
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", starter.module, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or ["no message"])[-1])
    ends: list[float] = json.loads(done.stdout.splitlines()[-1])
    return summary(name, [end - began for end in ends])


def summary(name: str, ends_s: Sequence[float]) -> Start:
    """What the ends of the steps, in seconds since the start, say about a process."""
    steps = [after - before for before, after in pairwise(ends_s)]
    steady = statistics.median(steps[-_LAST:])
    for i in range(len(steps)):
        if max(steps[i], statistics.median(steps[i : i + _WINDOW])) <= 1.1 * steady:
            return Start(name, ends_s[0], ends_s[i], 1e3 * steady)
    return Start(name, ends_s[0], ends_s[-1], 1e3 * steady)


def _median(starts: Sequence[Start]) -> Start:
    return Start(
        starts[0].name,
        statistics.median(start.first_s for start in starts),
        statistics.median(start.steady_s for start in starts),
        statistics.median(start.steady_step_ms for start in starts),
    )

"""Step timing: measure how long each step of a plan takes on random data.

Each round runs the plan twice: as the eager executor runs it, and with a clock between its steps. The
results are the medians over the rounds.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.executors import prepare
from graphnet.graph import Kind
from graphnet.inspection.report import Timing
from graphnet.inspection.walk import complete
from graphnet.plan import Plan, Source, generate
from graphnet.sdk import Spec
from graphnet.system import as_count, as_seed, synchronize

# A generated function has no other name that starts with an underscore, except `_`.
CLOCK = "_clock"


@torch.no_grad()
def time_steps(plan: Plan, *, rounds: int = 7, warm_up: int = 2, seed: int = 0) -> Timing:
    """Run a plan on random data, with a learning rate of zero, and measure the time of each step.

    Args:
        plan: the plan.
        rounds: the number of measured rounds.
        warm_up: the number of rounds before the first measured one.
        seed: the seed of the random data.

    Returns:
        The median time of each step and of the whole eager function, in seconds.

    Raises:
        LayerError: a layer's code failed.
    """
    if as_count(rounds, "time_steps: rounds") == 0:
        raise InputError("time_steps: rounds: expected 1 or more, got 0.")
    as_count(warm_up, "time_steps: warm_up")
    arguments = tuple(random_arguments(plan, seed=seed).values())
    device = plan.device
    stamps: list[float] = []

    def clock() -> None:
        synchronize(device)
        stamps.append(time.perf_counter())

    eager = prepare(plan, "eager")
    clocked = _with_clock(generate(plan), clock)
    steps: list[list[float]] = []
    whole: list[float] = []
    for number in range(warm_up + rounds):
        clock()
        eager(*arguments)
        clock()
        elapsed = stamps[1] - stamps[0]
        stamps.clear()
        clocked(*arguments)
        if number >= warm_up:
            whole.append(elapsed)
            steps.append([after - before for before, after in itertools.pairwise(stamps)])
        stamps.clear()
    medians = tuple(statistics.median(column) for column in zip(*steps, strict=True))
    return Timing(medians, statistics.median(whole), rounds)


def random_arguments(plan: Plan, *, seed: int) -> Mapping[str, Tensor]:
    """Make all arguments of a plan, by name.

    Inputs are uniform in 0..1, integers 0; the other arguments are as at the start of a run.
    """
    generator = torch.Generator().manual_seed(as_seed(seed, "random_arguments"))
    inputs = {name: random_input(plan.values[name].spec, generator) for name in plan.of(Kind.INPUT)}
    return complete(plan, inputs, seed=seed)


def random_input(spec: Spec, generator: torch.Generator) -> Tensor:
    """Draw an input: uniform in 0..1; integers are 0, which is a valid token and class label."""
    drawn = torch.rand(spec.shape, generator=generator)
    return drawn.to(dtype=spec.dtype, device=spec.device)


def _with_clock(source: Source, clock: Callable[[], None]) -> Callable[..., object]:
    """Compile the plan's generated function with a call of `clock` before each step and at the end."""
    lines: list[str] = []
    for number, line in enumerate(source.text.splitlines(), start=1):
        if number in source.lines or line.startswith("    return"):
            lines.append(f"    {CLOCK}()")
        lines.append(line)
    namespace: dict[str, object] = {**source.namespace, CLOCK: clock}
    exec(compile("\n".join(lines) + "\n", "<graphnet plan with a clock>", "exec"), namespace)
    function = namespace["step"]
    assert callable(function)
    return function

"""Step model: predict the time of a step of several processes from its plan.

The calls of a plan run one after the other. An exchange that has started goes on beside them, as far as the
network can hide it, and after the exchanges before it; a call that waits for it ends no earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphnet.graph import Call, Kind, Network
from graphnet.plan import Plan
from graphnet.sdk import Exchange, Wait


@dataclass(frozen=True, slots=True)
class StepTime:
    """The predicted time of a step.

    Args:
        seconds: the whole step.
        computing_s: its calls without the exchanges.
        exchanging_s: its exchanges, if nothing ran beside them.
    """

    seconds: float
    computing_s: float
    exchanging_s: float

    @property
    def hidden(self) -> float:
        """The share of the exchanges that costs no time; 1 if there are none."""
        shown = self.seconds - self.computing_s
        return 1.0 - shown / self.exchanging_s if self.exchanging_s else 1.0


def predict_step(
    plan: Plan,
    seconds: Callable[[Call], float],
    network: Network,
    *,
    count: int | None = None,
) -> StepTime:
    """Predict the time of a step.

    Args:
        plan: the plan of a step of several processes.
        seconds: the time of a call that is no exchange.
        network: the numbers of the network.
        count: the number of processes; None for the number in the plan.
    """
    now = computing = exchanging = free = 0.0
    ends: dict[str, float] = {}
    for step in plan.steps:
        call = step.call
        if isinstance(call.layer, Exchange):
            took = network.seconds(call, plan.values, count=count)
            exchanging += took
            now += (1.0 - network.hidden) * took
            free = max(now, free) + network.hidden * took
            ends.update(dict.fromkeys(call.makes(), free))
            if call.kind is not Kind.COLLECTIVE:  # it waits itself
                now = free
        elif isinstance(call.layer, Wait):
            now = max(now, ends[next(call.reads())])
        else:
            took = seconds(call)
            now, computing = now + took, computing + took
    return StepTime(now, computing, exchanging)

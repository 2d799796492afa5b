"""Gradient accumulation: training alternates between two plans over the same tensors.

The accumulation plan adds the gradients of a batch to a buffer. The update plan adds the gradients of the
last batch, and updates the parameters. Without accumulation, the update plan runs in every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from graphnet.plan import Plan
from graphnet.sdk import Event, Executor, Run

_ADDING = "adding"  # in the record of the update plan, the key of the accumulation plan's record


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A plan that is ready to run, and `rest`, the arguments that follow its inputs and targets."""

    plan: Plan
    run: Run
    rest: Sequence[Tensor]


class Accumulation:
    """Alternates between the accumulation plan, for `every` - 1 steps, and the update plan, for one step.

    Args:
        plan: the update plan.
        adding: the accumulation plan; None runs the update plan in every step.
        every: the number of steps for one update.
        tensors: the arguments of both plans by name, except inputs and targets.
        executor: runs the plans.
    """

    def __init__(
        self,
        plan: Plan,
        adding: Plan | None,
        *,
        every: int,
        tensors: Mapping[str, Tensor],
        executor: Executor,
    ) -> None:
        def prepare(one: Plan) -> PreparedStep:
            rest = [tensors[name] for name in one.arguments[len(one.inputs) :]]
            return PreparedStep(one, executor.prepare(one), rest)

        self.updating = prepare(plan)
        self.adding = None if adding is None else prepare(adding)
        self.order = (*[self.adding or self.updating] * (every - 1), self.updating)

    def at(self, step: int) -> PreparedStep:
        """Return the plan that runs in this step; the first step of a training is 0."""
        return self.order[step % len(self.order)]

    @property
    def steps_at_once(self) -> int:
        """The number of steps that are fastest in one call; 1 if two plans alternate."""
        return self.updating.run.steps_at_once if len(self.order) == 1 else 1

    def events(self) -> list[Event]:
        """Return the executor's decisions since the last call."""
        more = [] if self.adding is None else self.adding.run.events()
        return [*self.updating.run.events(), *more]

    def record(self) -> dict[str, Any]:
        """Return the executor's choices as plain data, for the log and the checkpoint."""
        more = {} if self.adding is None else {_ADDING: self.adding.run.record()}
        return {**self.updating.run.record(), **more}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Make the executor choose as in the run that wrote this record."""
        own = {name: value for name, value in record.items() if name != _ADDING}
        if own:
            self.updating.run.restore(own)
        if self.adding is not None and record.get(_ADDING):
            self.adding.run.restore(record[_ADDING])

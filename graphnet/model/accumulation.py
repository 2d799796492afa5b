"""Turns: the one or two plans that a training runs in turn, made ready over the same tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from graphnet.plan import Plan
from graphnet.sdk import Event, Executor, Run

_ADDING = "adding"  # the second run's record, inside that of the first


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A plan made ready, and what it takes after inputs and targets."""

    plan: Plan
    run: Run
    rest: Sequence[Tensor]


class Accumulation:
    """In every `every`-th step `plan` runs, in the others `adding`, which adds up gradients for it.

    `tensors` are all arguments of both but inputs and targets, by name.
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
        def turn(one: Plan) -> PreparedStep:
            rest = [tensors[name] for name in one.arguments[len(one.inputs) :]]
            return PreparedStep(one, executor.prepare(one), rest)

        self.updating = turn(plan)
        self.adding = None if adding is None else turn(adding)
        self.order = (*[self.adding or self.updating] * (every - 1), self.updating)

    def at(self, step: int) -> PreparedStep:
        """The turn of step 0, 1, ..."""
        return self.order[step % len(self.order)]

    def events(self) -> list[Event]:
        """What the executor decided since this was last asked."""
        more = [] if self.adding is None else self.adding.run.events()
        return [*self.updating.run.events(), *more]

    def record(self) -> dict[str, Any]:
        """What the executor chose, for the log and the checkpoint."""
        more = {} if self.adding is None else {_ADDING: self.adding.run.record()}
        return {**self.updating.run.record(), **more}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Choose as the run did that wrote this record."""
        own = {name: value for name, value in record.items() if name != _ADDING}
        if own:
            self.updating.run.restore(own)
        if self.adding is not None and record.get(_ADDING):
            self.adding.run.restore(record[_ADDING])

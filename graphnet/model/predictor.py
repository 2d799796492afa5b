"""Predictor: runs a model's inference plan, one for each input shape, over shared weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphnet.errors import CheckpointError, nearest
from graphnet.executors import prepare
from graphnet.model.slots import Copy, Shapes, check_input, fixed_arguments
from graphnet.plan import Plan, Tiling
from graphnet.sdk import Executor, Run, check_floating


class _Prelude:
    """What a plan computes ahead of weights, kept for as long as the weights stay the same."""

    def __init__(self, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
        self.plan = plan
        self._run = prepare(
            plan, "eager"
        )  # once for many runs: no time to be gained by compiling it
        self._weights = [tensors[name] for name in plan.arguments]
        self._made: tuple[Tensor, ...] = ()
        self._made_of: tuple[object, ...] = ()

    def __call__(self, age: object) -> tuple[Tensor, ...]:
        now = (age, *(weight._version for weight in self._weights))
        if now != self._made_of:
            self._made = ()  # the old ones go before the new ones come
            self._made, self._made_of = self._run(*self._weights), now
        return self._made


class Predictor:
    """Runs a model's inference plan, one for each input shape it meets, over shared weights.

    `plan_for` makes the plan of an input's shapes, or a Tiling, whose plan is run tile by tile.
    What depends on the weights alone is computed once, by the eager executor, and again when they have
    changed. A write by torch shows in a tensor's version; `age` is for other writes: a value that
    changes with them. `copies` are made again then. Plans with equal preludes share what those compute.
    """

    def __init__(
        self,
        plan_for: Callable[[Sequence[Sequence[int]]], Plan | Tiling],
        slots: Mapping[str, Tensor],
        executor: Executor,
        *,
        copies: Sequence[Copy] = (),
    ) -> None:
        self._plan_for = plan_for
        self._copies = copies
        self._age: object = None
        self._slots = slots
        self._executor = executor
        self._prepared: dict[Shapes, _Prepared] = {}

    def prepared(self, shapes: Shapes) -> _Prepared:
        if shapes not in self._prepared:
            self.prepare(shapes, self._plan_for(shapes))
        return self._prepared[shapes]

    def prepare(self, shapes: Shapes, made: Plan | Tiling) -> None:
        """Make what was planned for inputs of these shapes ready to run."""
        if len(self._prepared) >= 32:  # many sizes of image: keep the latest
            self._prepared.pop(next(iter(self._prepared)))
        plan, tiling = (made.plan, made) if isinstance(made, Tiling) else (made, None)
        missing = [name for name in plan.slots if name not in self._slots]
        if missing:
            raise CheckpointError(
                f"no tensor for {missing[0]!r}. {nearest(missing[0], self._slots)}"
            )
        tensors = {**fixed_arguments(plan), **self._slots}
        rest = [tensors[name] for name in plan.arguments[len(shapes) :] if name in tensors]
        run = self._executor.prepare(plan)
        prelude = self._prelude(plan.prelude)
        self._prepared[shapes] = _Prepared(plan, run, rest, prelude, tiling)

    def _prelude(self, plan: Plan | None) -> _Prelude | None:
        """The prelude made ready; one that an earlier plan has too is not made again."""
        if plan is None:
            return None
        known = (one.prelude for one in self._prepared.values())
        equal = (prelude for prelude in known if prelude is not None and prelude.plan == plan)
        return next(equal, None) or _Prelude(plan, {**fixed_arguments(plan), **self._slots})

    @torch.no_grad()
    def __call__(self, *inputs: Tensor, age: object = 0) -> Tensor | tuple[Tensor, ...]:
        check_floating(inputs, "predict")
        if age != self._age:
            for copy, weight in self._copies:
                copy.copy_(weight)
            self._age = age
        ready = self.prepared(tuple(tuple(x.shape) for x in inputs))
        if ready.tiling is None:
            outputs = ready(*inputs, age=age)
            return outputs[0] if len(outputs) == 1 else outputs
        return ready.tiling.run(inputs[0], lambda tile: ready(tile, age=age)[0])


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A plan made ready, and what it takes after its inputs: the rest, then what its prelude makes."""

    plan: Plan
    run: Run
    rest: Sequence[Tensor]
    prelude: _Prelude | None
    tiling: Tiling | None

    def __call__(self, *inputs: Tensor, age: object) -> tuple[Tensor, ...]:
        values = [self.plan.values[name] for name in self.plan.inputs]
        for tensor, value in zip(inputs, values, strict=True):
            check_input(tensor, value)
        ahead = () if self.prelude is None else self.prelude(age)
        return self.run(*inputs, *self.rest, *ahead)

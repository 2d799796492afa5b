"""Predictor: runs inference plans, one for each input shape, which share the model's weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphnet.errors import CheckpointError, nearest
from graphnet.executors import prepare
from graphnet.model.slots import Copy, Shapes, check_input, fixed_arguments, packed
from graphnet.plan import Plan, Tiling
from graphnet.sdk import Executor, Run, check_tensors

_MOST = 32  # plans that are kept


class _Prelude:
    """Computes the values that depend on weights alone, and keeps them until a weight changes."""

    def __init__(self, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
        self.plan = plan
        # One run serves many predictions, so compiling it would save no time.
        self._run = prepare(plan, "eager")
        self._weights = [tensors[name] for name in plan.arguments]
        self._lock = threading.Lock()
        self._kept: tuple[tuple[object, ...] | None, tuple[Tensor, ...]] = (None, ())

    def __call__(self, age: object) -> tuple[Tensor, ...]:
        versions = (age, *(weight._version for weight in self._weights))
        kept = self._kept
        if kept[0] != versions:
            with self._lock:
                kept = self._kept
                if kept[0] != versions:
                    # This frees the memory of the old outputs before the new ones are computed.
                    kept = self._kept = (None, ())
                    kept = self._kept = (versions, self._run(*self._weights))
        return kept[1]


class Predictor:
    """Runs a model's inference plans, one for each combination of input shapes, on shared weights.

    The values that depend on weights alone, a plan's prelude, are computed by the eager executor at the first
    prediction, and again when a weight has changed. Plans with equal preludes share these values. A write by
    torch changes the tensor's version. Other writes must change `age`, an argument of each call; then the
    `copies` are also made again.

    Several threads may predict at the same time.

    Args:
        plan_for: makes the plan for given input shapes, or a Tiling, whose plan runs tile by tile.
        slots: the weights by name.
        executor: runs the plans.
        copies: pairs of a copy of a weight and the weight.
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
        self._lock = threading.RLock()

    def prepared(self, shapes: Shapes) -> _Prepared:
        """Return the plan for inputs of these shapes, ready to run; make it if it does not exist."""
        ready = self._prepared.get(shapes)
        if ready is None:
            with self._lock:  # one thread makes it, the others wait
                ready = self._prepared.get(shapes) or self.prepare(shapes, self._plan_for(shapes))
        return ready

    def prepare(self, shapes: Shapes, made: Plan | Tiling) -> _Prepared:
        """Make a plan or Tiling for inputs of these shapes ready to run, and keep it.

        Raises:
            CheckpointError: a weight of the plan is missing.
        """
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
        ready = _Prepared(plan, run, rest, prelude, tiling)
        with self._lock:
            while len(self._prepared) >= _MOST:  # images of many sizes: drop the oldest plan
                del self._prepared[next(iter(self._prepared))]
            self._prepared[shapes] = ready
        return ready

    def _prelude(self, plan: Plan | None) -> _Prelude | None:
        """Return a prelude that is ready to run, the same one for plans with equal preludes."""
        if plan is None:
            return None
        known = (one.prelude for one in self._prepared.values())
        equal = (prelude for prelude in known if prelude is not None and prelude.plan == plan)
        return next(equal, None) or _Prelude(plan, {**fixed_arguments(plan), **self._slots})

    @torch.no_grad()
    def __call__(self, *inputs: Tensor, age: object = 0) -> Tensor | tuple[Tensor, ...]:
        check_tensors(inputs, "predict")
        if age != self._age:
            with self._lock:
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
    """A plan that is ready to run. Its arguments are the inputs, `rest`, and the outputs of its prelude."""

    plan: Plan
    run: Run
    rest: Sequence[Tensor]
    prelude: _Prelude | None
    tiling: Tiling | None

    def __call__(self, *inputs: Tensor, age: object) -> tuple[Tensor, ...]:
        values = [self.plan.values[name] for name in self.plan.inputs]
        for tensor, value in zip(inputs, values, strict=True):
            check_input(tensor, value)
        computed = () if self.prelude is None else self.prelude(age)
        return self.run(*map(packed, inputs, values), *self.rest, *computed)

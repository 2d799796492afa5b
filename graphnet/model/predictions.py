"""Predictions: a model's predictors, one for each combination of options, dtype and executor."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.model.plans import Plans
from graphnet.model.predictor import Predictor
from graphnet.model.slots import Copy, set_up
from graphnet.model.weights import Weights
from graphnet.plan import CompileOptions, Plan, Tiling
from graphnet.sdk import Executor

Key = tuple[CompileOptions, torch.dtype, Executor]


@dataclass(frozen=True)
class Predictions:
    """Makes the predictors of a model when they are first used, and keeps them.

    Args:
        plans: makes the plans of the model's network.
        weights: the model's weights; None draws them from `seed` for each predictor.
        seed: the seed of weights that are drawn.
        made: the predictors so far.
    """

    plans: Plans
    weights: Weights | None
    seed: int
    made: dict[Key, Predictor] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, compare=False, repr=False)

    def run(self, inputs: Sequence[Tensor], options: CompileOptions, executor: Executor) -> Any:
        """Return the output for these inputs, or a tuple of several.

        Raises:
            InputError: the inputs have another dtype than `options` state.
        """
        floating = (x.dtype for x in inputs if x.is_floating_point())
        dtype = next(floating, options.target.dtype)
        if options.dtype not in (None, dtype):
            raise InputError(f"predict: expected inputs of the dtype {options.dtype}, got {dtype}")
        key = (options, dtype, executor)
        if key not in self.made:
            options.warn_if_slow(stacklevel=3)
            shapes = tuple(tuple(x.shape) for x in inputs)
            with self.lock:  # one thread makes it, the others wait
                if key not in self.made:
                    self.made[key] = self._first(shapes, replace(options, dtype=dtype), executor)
        age = 0 if self.weights is None else self.weights.age()
        return self.made[key](*inputs, age=age)

    def _first(
        self, shapes: tuple[tuple[int, ...], ...], options: CompileOptions, executor: Executor
    ) -> Predictor:
        """Make a predictor that is ready for inputs of these shapes."""
        made = self.plans.inference(shapes, options)
        plan = made.plan if isinstance(made, Tiling) else made
        values = [plan.values[name] for name in plan.slots]
        given = None if self.weights is None else self.weights.own
        slots = set_up(values, seed=self.seed, given=given)
        copies: list[Copy] = []
        if self.weights is not None:
            slots, copies = self.weights.share(slots, restride=not self.made)
        predictor = self.predictor(slots, options, executor, copies=copies)
        predictor.prepare(shapes, made)
        return predictor

    def predictor(
        self,
        slots: Mapping[str, Tensor],
        options: CompileOptions,
        executor: Executor,
        *,
        copies: Sequence[Copy] = (),
    ) -> Predictor:
        """Make a predictor that runs on these tensors."""
        plan_for = partial(self.plans.inference, options=options)
        return Predictor(plan_for, slots, executor, copies=copies)

    def measurer(
        self, slots: Mapping[str, Tensor], options: CompileOptions, executor: Executor, loss: object
    ) -> Predictor:
        """Make a predictor that takes inputs and targets, and returns the loss of its prediction."""
        count = len(self.plans.network.inputs)

        def plan_for(shapes: Sequence[Sequence[int]]) -> Plan:
            return self.plans.measuring(shapes[:count], options, loss=loss)

        return Predictor(plan_for, slots, executor)

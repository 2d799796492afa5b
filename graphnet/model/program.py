"""Program: a model compiled for one shape of input: one plan for a whole training step.

program = model.compile((32, 3, 32, 32), loss="mse", optimizer=SGD(lr=10.0))
loss = program.step(noisy, other)
clean = program.predict(image)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from graphnet.description import ModelDescription
from graphnet.errors import CheckpointError, InputError
from graphnet.graph import LR, SEED, STEP, Kind
from graphnet.model.accumulation import Accumulation
from graphnet.model.checkpoint import Checkpoint, versions_of, write_checkpoint
from graphnet.model.predictor import Predictor
from graphnet.model.slots import check_input, packed, set_up
from graphnet.model.weights import Weights
from graphnet.passes import DONE, EMA, SCALE, UPDATES
from graphnet.plan import Plan
from graphnet.sdk import Executor, Make, Registry, as_given, check_tensors
from graphnet.system import keep_freed_memory


class Program:
    """A model compiled for training: `step` runs the whole plan, `predict` the forward part.

    `plan` is the training plan; `weights` the tensors it updates in place, by name, copies of the model's;
    `averages` those that follow them, by the same names, where the plan has any. Where an update takes
    several steps, `adding` is the plan of all but the last of them; `turns` has both.
    """

    def __init__(
        self,
        description: ModelDescription,
        plan: Plan,
        *,
        registry: Registry,
        weights: Mapping[str, Tensor] | None,
        adding: Plan | None = None,
        accumulate: int = 1,
        predictor: Callable[[Mapping[str, Tensor]], Predictor],
        executor: Executor,
        lr: float,
        seed: int,
    ) -> None:
        self.description = description
        self.registry = registry
        self.plan = plan
        self.seed = seed
        self.steps_done = 0
        names = [n for n in plan.slots if not plan.values[n].role]
        weights = set_up([plan.values[n] for n in names], seed=seed, given=weights)
        self.weights = Weights(weights)
        states = [plan.values[n] for n in plan.slots if plan.values[n].role]
        self.optimizer_state = set_up(states, seed=seed)
        followers = {state.of: state.name for state in states if state.role == EMA}
        averages = {
            name: self.optimizer_state[followers[name]] for name in names if name in followers
        }
        for name, average in averages.items():
            average.copy_(weights[name])  # where it starts from
        self.averages = Weights(averages)
        values = {**(adding.values if adding is not None else {}), **plan.values}
        fixed = [value for value in values.values() if value.kind is Kind.CONSTANT]
        constants = set_up(fixed, seed=seed)
        specs = {name: value.spec for name, value in values.items() if value.kind is Kind.SCALAR}
        self._scalars = {
            name: torch.zeros((), dtype=spec.dtype, device=spec.device)
            for name, spec in specs.items()
        }
        tensors = {**self._scalars, **constants, **weights, **self.optimizer_state}
        self._input_values = [plan.values[name] for name in plan.inputs]
        if any(value.spec.device.type == "cpu" for value in self._input_values):
            keep_freed_memory()
        self.turns = Accumulation(
            plan, adding, every=accumulate, tensors=tensors, executor=executor
        )
        self._predictor = predictor({**weights, **averages})
        if SEED in self._scalars:
            self._scalars[SEED].fill_(seed)
        self._lr = 0.0
        self.lr = lr

    @property
    def model_weights(self) -> dict[str, Tensor]:
        """What predicts and is saved: the weights, averages in the place of those that have one."""
        return {**self.weights, **self.averages}

    @property
    def training_state(self) -> dict[str, Tensor]:
        """What a run that goes on needs beside `model_weights`: weights behind averages are among it."""
        values = self.plan.values
        states = {n: t for n, t in self.optimizer_state.items() if values[n].role != EMA}
        return states | {name: self.weights.own[name] for name in self.averages}

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        if lr != self._lr and LR in self._scalars:
            self._scalars[LR].fill_(lr)
        self._lr = lr

    @property
    def loss_scale(self) -> float | None:
        """By what the loss is multiplied in float16 (see passes/loss_scale.py), as it is now; else None."""
        scale = self.optimizer_state.get(SCALE)
        return None if scale is None else float(scale)

    @property
    def updates_done(self) -> int | None:
        """How many steps in float16 have updated the weights, and were not skipped; else None."""
        done = self.optimizer_state.get(DONE)
        return None if done is None else int(done)

    @property
    def next_plan(self) -> Plan:
        """The plan that the next step runs: `plan`, unless that step only adds up gradients."""
        return self.turns.at(self.steps_done).plan

    def arguments(self, *tensors: Tensor) -> dict[str, Tensor]:
        """What the next step on these inputs and targets would be given: `next_plan`'s arguments by name."""
        return self.packed_arguments(*self.pack(*tensors))

    def packed_arguments(self, *tensors: Tensor) -> dict[str, Tensor]:
        """`arguments` for tensors that `pack` returned, or samples of those."""
        turn = self.turns.at(self.steps_done)
        return dict(zip(turn.plan.arguments, (*tensors, *turn.rest), strict=True))

    def pack(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Inputs and targets in the layouts that the plan reads: once for a data set, then `step_packed`.

        Images are (N, C, H, W) for any N, of any dtype.
        """
        return tuple(map(packed, tensors, self._input_values))

    def step(self, *tensors: Tensor) -> Tensor:
        """Run one training step on inputs and targets; returns the loss, 0-dim, on the device.

        Raises InputError for a tensor of another shape, dtype or device than compiled for, LayerError
        when a layer's own code fails.
        """
        if len(tensors) != len(self._input_values):
            names = ", ".join(value.label for value in self._input_values)
            raise InputError(
                f"expected {len(self._input_values)} tensors ({names}), got {len(tensors)}"
            )
        check_tensors(tensors, "step")
        for tensor, value in zip(tensors, self._input_values, strict=True):
            check_input(tensor, value)
        return self.step_packed(*self.pack(*tensors))

    def step_packed(self, *tensors: Tensor) -> Tensor:
        """`step` on tensors that `pack` returned, or samples of those; nothing is checked."""
        return self.step_made(as_given, *tensors)

    @torch.no_grad()
    def step_made(self, make: Make, *given: Tensor) -> Tensor:
        """`step_packed` on the tensors that `make` makes of others, such as samples of a data set by index.

        It is to depend on those tensors' values alone, and to be the same object in every step: the
        executor cudagraph captures it with the step.
        """
        turn = self.turns.at(self.steps_done)
        (loss,) = turn.run.on(make, given, turn.rest)
        self.steps_done += 1
        if STEP in self._scalars:
            self._scalars[STEP].add_(1)
        if UPDATES in self._scalars and turn is self.turns.updating:
            self._scalars[UPDATES].add_(1)
        return loss

    def predict(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The model's outputs for inputs of any shape that fits; `model_weights` as they are now."""
        age = self.steps_done, self.weights.age(), self.averages.age()
        return self._predictor(*inputs, age=age)

    def save(self, path: Path | str) -> None:
        """Write description, `model_weights` and plugin versions as a safetensors file, whole or not at all.

        Raises:
            CheckpointError: the file cannot be written.
        """
        versions = versions_of(self.registry, self.description)
        write_checkpoint(path, Checkpoint(self.description, self.model_weights, versions))

    def restore(self, state: Mapping[str, Tensor], *, steps_done: int) -> None:
        """Go on from an earlier run, whose `model_weights` the model has: its training state, its steps."""
        mine = self.training_state
        if unknown := set(state) ^ set(mine):
            raise CheckpointError(f"the training state differs in {sorted(unknown)}")
        for name, tensor in state.items():
            mine[name].copy_(tensor)
        self.rewind(steps_done)

    def rewind(self, steps_done: int) -> None:
        """Set the number of steps done; the tensors stay as they are."""
        self.steps_done = steps_done
        if STEP in self._scalars:
            self._scalars[STEP].fill_(steps_done)
        if UPDATES in self._scalars:
            self._scalars[UPDATES].fill_(steps_done // len(self.turns.order))

"""Program: a model that is compiled for training on inputs of one shape.

program = model.compile((32, 3, 32, 32), loss="mse", optimizer=SGD(lr=10.0))
loss = program.step(noisy, other)
clean = program.predict(image)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex

import torch
from torch import Tensor

from graphnet.description import ModelDescription
from graphnet.errors import CheckpointError, InputError, nearest
from graphnet.graph import Kind
from graphnet.model.accumulation import Accumulation
from graphnet.model.arrays import Array, as_tensors, like_given
from graphnet.model.checkpoint import Checkpoint, versions_of, write_checkpoint
from graphnet.model.predictor import Predictor
from graphnet.model.slots import check_input, packed, set_up
from graphnet.model.trained import CountedStep, Trained
from graphnet.model.weights import Weights
from graphnet.passes import DONE, EMA, GRAD, SCALE
from graphnet.plan import Plan
from graphnet.sdk import Executor, Make, Registry, as_given, check_tensors, dtype_name
from graphnet.system import as_count, require


class Program:
    """A compiled training: `step` runs one training step, `predict` runs the forward pass alone.

    `weights` has copies of the model's weights, which steps update in place. `report` has what the last
    step reported, by name, as 0-dim tensors: with `report=("losses", "gradient_norm")` in `Model.compile`,
    each loss of a sum, such as "mse", and "gradient_norm".

    Args:
        plan: the plan of a step with an update.
        adding: with gradient accumulation, the plan of a step that only adds up gradients.
        accumulate: the number of steps for one update.
        trained: the weights, and everything else that steps change.
        reported: the names of the values that a step returns after the loss.
        predictor: runs predictions on the weights, or their averages.
        measurer: computes the loss of predictions on the same weights.
        other: makes a program for inputs of other shapes with the same `trained`.

    >>> from graphnet import SGD, Model
    >>> layers = [{"conv2d": {"out_channels": 1, "kernel_size": 1}}]
    >>> model = Model({"input": {"channels": 1}, "layers": layers})
    >>> program = model.compile((2, 1, 4, 4), loss="mse", optimizer=SGD(lr=0.1), device="cpu")
    >>> x = torch.ones(2, 1, 4, 4)
    >>> first, second = (float(program.step(x, x)) for _ in range(2))
    >>> second < first
    True
    """

    def __init__(
        self,
        description: ModelDescription,
        plan: Plan,
        *,
        registry: Registry,
        trained: Trained,
        adding: Plan | None = None,
        accumulate: int = 1,
        reported: Sequence[str] = (),
        predictor: Predictor,
        measurer: Predictor,
        executor: Executor,
        seed: int,
        other: Callable[..., Program],
    ) -> None:
        self.description = description
        self.registry = registry
        self.plan = plan
        self.seed = seed
        self.report: dict[str, Tensor] = {}
        self._trained = trained
        self._reported = tuple(reported)
        self._predictor = predictor
        self._measurer = measurer
        self._other = other
        values = {**(adding.values if adding is not None else {}), **plan.values}
        constants = set_up([v for v in values.values() if v.kind is Kind.CONSTANT], seed=seed)
        self._input_values = [plan.values[name] for name in plan.inputs]
        trained.check_casts(plan)
        tensors = {**constants, **trained.tensors}
        self.accumulation = Accumulation(
            plan, adding, every=accumulate, tensors=tensors, executor=executor
        )
        self._ready = True  # from here on, a misspelled attribute is an error

    def with_shapes(self, *inputs: Sequence[int]) -> Program:
        """Compile a program for inputs of other shapes that trains the same weights.

        Both have one optimizer state, one step count and one learning rate. So an epoch can end with a
        smaller batch, and images of several sizes can be trained on.

        >>> from graphnet import Model
        >>> model = Model({"layers": [{"linear": {"out_features": 1}}]})
        >>> program = model.compile((32, 4), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
        >>> last = program.with_shapes((5, 4))
        >>> _ = program.step(torch.ones(32, 4), torch.ones(32, 1))
        >>> _ = last.step(torch.ones(5, 4), torch.ones(5, 1))
        >>> program.steps_done
        2
        """
        return self._other(*inputs)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse copy and pickle: a program has compiled code, and shares its tensors."""
        raise InputError(
            "a program cannot be copied or pickled. Keep its weights: program.save(path) or "
            "copy.deepcopy(dict(program.model_weights)). model.compile(...) makes another program."
        )

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, "_ready") and not hasattr(self, name):
            known = [one for one in dir(self) if not one.startswith("_")]
            raise AttributeError(f"a program has no {name!r}. {nearest(name, known)}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return (
            f"Program({self.description.name!r} on {self.device}, {self.plan}, "
            f"{self.steps_done} steps done)"
        )

    @property
    def model_weights(self) -> dict[str, Tensor]:
        """The tensors that predictions and `save` use: the averages, and the weights that have no average."""
        return {**self.weights, **self.averages}

    @property
    def training_state(self) -> dict[str, Tensor]:
        """The tensors that a resumed run needs besides `model_weights`: states, and averaged weights.

        Sums of gradients are among them only after a step that adds to them without an update. With
        `shard="optimizer"` all processes must read this together, and the first alone gets the divided
        states, which are whole there.
        """
        return self._trained.whole(self._states(self.steps_done))

    def _states(self, steps_done: int) -> dict[str, Tensor]:
        """The `training_state` after so many steps; of divided states, the shards of this process."""
        updated = steps_done % len(self.accumulation.order) == 0
        without = (EMA, GRAD) if updated else (EMA,)
        values = self.plan.values
        states = {n: t for n, t in self.optimizer_state.items() if values[n].role not in without}
        return states | {name: self.weights.own[name] for name in self.averages}

    @property
    def weights(self) -> Weights:
        """The weights by name, which steps update in place."""
        return self._trained.weights

    @property
    def averages(self) -> Weights:
        """The moving averages of weights by name; empty unless the plan computes any."""
        return self._trained.averages

    @property
    def optimizer_state(self) -> dict[str, Tensor]:
        """The tensors of the optimizer, and others that steps update, by name.

        With `shard="optimizer"`, a process has its shard of a state, as a tensor with one axis.
        """
        return self._trained.optimizer_state

    @property
    def is_divided(self) -> bool:
        """Whether states of the optimizer are divided among the processes of the training."""
        return bool(self._trained.shardings)

    @property
    def steps_done(self) -> int:
        """The number of steps so far, those of programs `with_shapes` included."""
        return self._trained.steps_done

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._trained.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._trained.lr = lr

    @property
    def device(self) -> torch.device:
        """The device on which the program runs; `step` and `predict` move their inputs to it."""
        return self._input_values[0].spec.device

    @property
    def loss_scale(self) -> float | None:
        """The current factor of the loss in float16 (see passes/loss_scale.py); None in other precisions."""
        scale = self.optimizer_state.get(SCALE)
        return None if scale is None else float(scale)

    @property
    def updates_done(self) -> int | None:
        """The number of updates in float16 that were not skipped; None in other precisions."""
        done = self.optimizer_state.get(DONE)
        return None if done is None else int(done)

    @property
    def next_plan(self) -> Plan:
        """The plan of the next step: `plan`, or `adding` if that step only adds up gradients."""
        return self.accumulation.at(self.steps_done).plan

    def arguments(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Return the arguments of `next_plan` by name, for a step on these inputs and targets."""
        return self.packed_arguments(*self.pack(*tensors))

    def packed_arguments(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Return the same as `arguments`, for tensors that `pack` returned, or samples of them."""
        self._trained.renew_casts()
        ready = self.accumulation.at(self.steps_done)
        return dict(zip(ready.plan.arguments, (*tensors, *ready.rest), strict=True))

    def pack(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Bring inputs and targets to the device and the layouts that the plan reads, for `step_packed`.

        They are images (N, C, H, W) of any dtype and any N, so a whole data set can be packed once. Raises
        InputError if an argument is no dense tensor, or their number is not that of the inputs and targets.
        """
        self._check_count(tensors)
        check_tensors(tensors, "pack")
        return tuple(map(packed, tensors, self._input_values))

    def step(self, *tensors: Tensor) -> Tensor:
        """Run one training step on inputs and targets; return the loss, a 0-dim tensor on the device.

        The tensors are moved to the program's device. Raises InputError if a tensor has another shape or
        dtype than the plan expects, LayerError if a layer's code fails.
        """
        self._check_count(tensors)
        check_tensors(tensors, "step")
        for tensor, value in zip(tensors, self._input_values, strict=True):
            check_input(tensor, value)
        return self.step_packed(*map(packed, tensors, self._input_values))

    def step_packed(self, *tensors: Tensor) -> Tensor:
        """Run a step without checks, on tensors that `pack` returned, or samples of them."""
        return self.step_made(as_given, *tensors)

    @torch.no_grad()
    def step_made(self, make: Make, *given: Tensor) -> Tensor:
        """Run `step_packed` on the tensors that `make` returns, such as samples of a data set for indices.

        `make` must depend only on the values of the tensors `given`, and must be the same object in every
        step, since the executor cudagraph captures it together with the step.
        """
        ready, trained = self.accumulation.at(self.steps_done), self._trained
        trained.renew_casts()
        loss, *others = ready.run.on(make, given, ready.rest)
        self.report = dict(zip(self._reported, others, strict=False))
        trained.count(updated=ready is self.accumulation.updating)
        return loss

    @property
    def steps_at_once(self) -> int:
        """The number of steps that `steps_made` runs fastest: 32, say, if the executor captures so many."""
        return self.accumulation.steps_at_once

    @torch.no_grad()
    def steps_made(
        self, make: Make, given: Sequence[Sequence[Tensor]], *, lrs: Sequence[float]
    ) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Run `step_made` several times, each time with other tensors and its learning rate.

        The results have the same bits as those of single steps.

        Args:
            make: as in `step_made`.
            given: the tensors of each step.
            lrs: the learning rate of each step; the last one stays.

        Returns:
            The loss and the `report` of each step.
        """
        if len(given) == 1 or self.steps_at_once == 1:
            return [
                self._step_at(lr, make, tensors) for lr, tensors in zip(lrs, given, strict=True)
            ]
        trained, ready, done = self._trained, self.accumulation.updating, self.steps_done
        rates = trained.lrs_on_device(lrs)
        trained.renew_casts()
        try:
            steps = ready.run.on_each(
                CountedStep(make, trained),
                [(lr, *tensors) for lr, tensors in zip(rates, given, strict=True)],
                ready.rest,
            )
        except BaseException:
            trained.counted(trained.steps_done, lr=None)  # of the steps before the one that failed
            raise
        trained.counted(done + len(steps), lr=lrs[-1])  # a replay does not count on the host
        found = [(loss, dict(zip(self._reported, others, strict=False))) for loss, *others in steps]
        self.report = found[-1][1]
        return found

    def _step_at(
        self, lr: float, make: Make, given: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.lr = lr
        return self.step_made(make, *given), self.report

    def predict(self, *inputs: Tensor | Array) -> Any:
        """Run the model with the current `model_weights`, on inputs of any shape that the model takes.

        It returns a tensor, or a tuple if the model has several outputs. The inputs are moved to the
        program's device, and the outputs stay there. If inputs are numpy arrays, the outputs are numpy arrays
        too; an array counts as a tensor of its dtype. Raises InputError as `step`.
        """
        where = f"{self.description.name}: predict"
        outputs = self._predictor(*as_tensors(inputs, where), age=self._trained.age())
        return like_given(outputs, inputs, where)

    def loss(self, *tensors: Tensor) -> Tensor:
        """Compute the loss of a prediction on inputs and targets, which trains nothing.

        It predicts as `predict` does, with the current `model_weights`, on inputs of any shape that the model
        takes. The tensors are moved to the program's device. Raises InputError as `step`.

        Returns:
            The loss, a 0-dim tensor on the device.

        >>> from graphnet import Model
        >>> model = Model({"layers": ["relu", {"dropout": {"p": 0.5}}]})
        >>> program = model.compile((2, 4), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
        >>> program.loss(torch.ones(9, 4), torch.full((9, 4), 3.0))
        tensor(4.)
        """
        self._check_count(tensors)
        check_tensors(tensors, "loss")
        loss = self._measurer(*tensors, age=self._trained.age())
        assert isinstance(loss, Tensor)  # a loss is the one output of its plan
        return loss

    def _check_count(self, tensors: Sequence[Tensor]) -> None:
        if len(tensors) != len(self._input_values):
            names = ", ".join(value.label for value in self._input_values)
            raise InputError(
                f"expected {len(self._input_values)} tensors ({names}), got {len(tensors)}"
            )

    def save(self, path: Path | str) -> None:
        """Write the description, `model_weights` and the plugins' versions to a safetensors file.

        Raises CheckpointError if the file cannot be written; an older file at `path` is then unchanged.
        """
        versions = versions_of(self.registry, self.description)
        write_checkpoint(path, Checkpoint(self.description, self.model_weights, versions))

    def restore(
        self,
        state: Mapping[str, Tensor],
        *,
        steps_done: int,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Continue an earlier run: take its training state and its number of steps.

        Args:
            state: the `training_state` of the earlier run.
            steps_done: the steps that it has done.
            weights: the `model_weights` of that run; None if the program was compiled from a model that has
                them.

        Raises:
            InputError: `steps_done` is no integer of 0 or more.
            CheckpointError: the state or the weights have other names or shapes than this program's.
        """
        steps_done = as_count(steps_done, "restore: steps_done")
        require(state, Mapping, "restore: the training state", "tensors by name")
        mine = self._states(steps_done)
        for name, sharding in self._trained.shardings.items():
            mine[name] = torch.empty(sharding.shape, dtype=mine[name].dtype, device="meta")
        sums = {n: t for n, t in self.optimizer_state.items() if self.plan.values[n].role == GRAD}
        given = {n: t for n, t in state.items() if n in mine or n not in sums}
        _check_same(given, mine, "the training state")
        if weights is not None:
            _check_same(weights, self.weights.own, "the weights")
            self.averages.set({name: weights[name] for name in self.averages})
            own = [name for name in self.weights if name not in self.averages]
            self.weights.set({name: weights[name] for name in own})
        for tensor in sums.values():
            tensor.zero_()
        for name, tensor in given.items():
            if name in self.averages:
                self.weights.own[name].copy_(tensor)
            else:
                self._trained.set_state(name, tensor)
        self.rewind(steps_done)

    def rewind(self, steps_done: int) -> None:
        """Set the number of steps done; the weights and states do not change.

        Raises InputError unless it is an integer of 0 or more.
        """
        steps_done = as_count(steps_done, "rewind: steps_done")
        self._trained.rewind(steps_done, every=len(self.accumulation.order))


def _check_same(saved: Mapping[str, Tensor], mine: Mapping[str, Tensor], what: str) -> None:
    """Raise CheckpointError if tensors have other names or shapes than those of this program."""
    require(saved, Mapping, f"restore: {what}", "tensors by name")
    if unknown := set(saved) ^ set(mine):
        raise CheckpointError(
            f"{what} of the checkpoint differs in {', '.join(sorted(map(str, unknown)))}"
        )
    for name, tensor in mine.items():
        if saved[name].shape != tensor.shape or saved[name].dtype != tensor.dtype:
            expected, found = (
                f"{dtype_name(one.dtype)} {tuple(one.shape)}" for one in (tensor, saved[name])
            )
            raise CheckpointError(
                f"{what} of the checkpoint: {name}: expected {expected}, found {found}"
            )

"""Trained: what training steps change; programs for inputs of several shapes share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from graphnet.errors import CompileError, InputError, shown
from graphnet.graph import CAST, LR, RANK, SEED, STEP, Kind
from graphnet.model.processes import SINGLE, Joined
from graphnet.model.slots import set_up
from graphnet.model.weights import Weights
from graphnet.passes import EMA, UPDATES
from graphnet.plan import Plan
from graphnet.sdk import Make, Run


class Trained:
    """The weights, their averages, the optimizer's state, the step count and the learning rate.

    Args:
        plans: the plan of a step with an update, and after it that of a step that only adds up gradients.
        given: the weights to start from; None draws them.
        seed: the seed of weights that are drawn, and of random layers.
        lr: the learning rate.
        processes: those that train together.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        given: Mapping[str, Tensor] | None,
        seed: int,
        lr: float,
        processes: Joined = SINGLE,
    ) -> None:
        plan = plans[0]
        self.device = plan.device
        self.processes = processes
        names = [n for n in plan.slots if not plan.values[n].role]
        self.weights = Weights(set_up([plan.values[n] for n in names], seed=seed, given=given))
        states = [plan.values[n] for n in plan.slots if plan.values[n].role not in ("", CAST)]
        kept = [value for n in plan.slots if (value := plan.values[n]).role == CAST]
        self.casts = set_up(kept, seed=seed)  # the slots that hold casts of weights
        self._cast_weights = [value.of for value in kept]
        self._casts_age: int | None = None  # the age of the weights when they were cast
        self.optimizer_state = set_up(states, seed=seed)
        self.shardings = {
            value.name: value.sharding
            for value in states
            if value.sharding is not None and value.sharding.count > 1
        }
        averages = {v.of: self.optimizer_state[v.name] for v in states if v.role == EMA}
        self.averages = Weights({name: averages[name] for name in names if name in averages})
        for name, average in self.averages.own.items():
            average.copy_(self.weights.own[name])  # an average starts from its weight
        specs = {
            name: value.spec
            for name, value in chain.from_iterable(one.values.items() for one in plans)
            if value.kind is Kind.SCALAR
        }
        self.scalars = {
            name: torch.zeros((), dtype=spec.dtype, device=spec.device)
            for name, spec in specs.items()
        }
        if SEED in self.scalars:
            self.scalars[SEED].fill_(seed)
        if RANK in self.scalars:
            self.scalars[RANK].fill_(processes.rank)
        self.steps_done = 0
        self._lr = 0.0
        self.lr = lr

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._check_lr(lr)
        if lr != self._lr and LR in self.scalars:
            self.scalars[LR].fill_(lr)
        self._lr = lr

    def _check_lr(self, lr: float) -> None:
        number = isinstance(lr, (int, float)) and not isinstance(lr, bool)
        most = torch.finfo(self._lr_dtype).max
        if not number or not 0.0 <= lr <= most:
            raise InputError(f"lr: expected a number from 0 to {most:.3g}, got {shown(lr)}")

    @property
    def _lr_dtype(self) -> torch.dtype:
        return self.scalars[LR].dtype if LR in self.scalars else torch.float64

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that plans take besides inputs and constants, by name."""
        return {**self.scalars, **self.weights.own, **self.optimizer_state, **self.casts}

    def check_casts(self, plan: Plan) -> None:
        """Check that a plan for other shapes keeps the casts of the same weights: steps of all write them.

        Raises CompileError if it does not; only a pass or kernel of a plugin can be the reason.
        """
        kept = {name for name in plan.slots if plan.values[name].role == CAST}
        if kept != self.casts.keys():
            differing = ", ".join(sorted(kept ^ self.casts.keys()))
            raise CompileError(
                f"the plans for several shapes keep different casts of weights: {differing}. Compile with "
                f"without=['keep_casts']."
            )

    def renew_casts(self) -> None:
        """Compute the casts of weights, if something else than a step may have written a weight."""
        if self.casts and (age := self.weights.age()) != self._casts_age:
            weights = [self.weights.own[weight] for weight in self._cast_weights]
            torch._foreach_copy_(list(self.casts.values()), weights)
            self._casts_age = age

    def whole(self, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Optimizer states, each of them whole; all processes call it.

        The first process alone gets the states that are divided among the processes.
        """
        found: dict[str, Tensor] = {}
        for name, tensor in states.items():
            if (sharding := self.shardings.get(name)) is not None:
                tensor = self.processes.whole(tensor, sharding)
                if self.processes.rank:
                    continue
            found[name] = tensor
        return found

    def set_state(self, name: str, whole: Tensor) -> None:
        """Copy a whole state into its slot, or this process's shard of it."""
        if (sharding := self.shardings.get(name)) is not None:
            whole = self.processes.shard(whole, sharding)
        self.optimizer_state[name].copy_(whole)

    def age(self) -> object:
        """A value that changes whenever a tensor may have changed."""
        return self.steps_done, self.weights.age(), self.averages.age()

    def count(self, *, updated: bool) -> None:
        """Count a step, and the update that it made."""
        self.steps_done += 1
        if STEP in self.scalars:
            self.scalars[STEP].add_(1)
        if UPDATES in self.scalars and updated:
            self.scalars[UPDATES].add_(1)

    def lrs_on_device(self, lrs: Sequence[float]) -> Tensor:
        """Return learning rates as a tensor (N,), from which each step on the device takes its own."""
        for lr in lrs:
            self._check_lr(lr)
        on_host = torch.tensor(lrs, dtype=self._lr_dtype)
        return on_host.to(self.device, non_blocking=True)

    def counted(self, steps_done: int, *, lr: float | None) -> None:
        """Set the number of steps done, which the device has counted, and their last learning rate.

        None reads the learning rate from the device.
        """
        self.steps_done = steps_done
        if lr is None and LR in self.scalars:
            lr = float(self.scalars[LR])
        self._lr = self._lr if lr is None else lr

    def rewind(self, steps_done: int, *, every: int) -> None:
        """Set the number of steps done; one of `every` steps makes an update."""
        self.steps_done = steps_done
        self._casts_age = None  # the weights are those of another step
        if STEP in self.scalars:
            self.scalars[STEP].fill_(steps_done)
        if UPDATES in self.scalars:
            self.scalars[UPDATES].fill_(steps_done // every)


@dataclass(frozen=True, slots=True)
class CountedStep:
    """Runs one of several steps, whose learning rate is set and which is counted on the device.

    Args:
        make: makes the plan's inputs.
        trained: has the tensors of the learning rate and the counts.
    """

    make: Make
    trained: Trained

    def __call__(
        self, run: Run, given: Sequence[Tensor], rest: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        lr, *tensors = given
        if LR in self.trained.scalars:
            self.trained.scalars[LR].copy_(lr)
        outputs = run.on(self.make, tensors, rest)
        self.trained.count(updated=True)
        return outputs

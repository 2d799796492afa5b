"""Trainer: runs a job's steps and yields records; prints nothing.

Batches come from tensors in memory. Which samples make which batch is a function of (seed, epoch)
alone, so a run resumed at any step goes on as if it had not stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from graphnet.checkpoint import Checkpoint, versions_of
from graphnet.config import Job
from graphnet.data import Pairs
from graphnet.device import resolve
from graphnet.errors import CheckpointError, DataError, TrainingError
from graphnet.graph import Kind, Value
from graphnet.layout import Layout, pack
from graphnet.program import Program, plain_spec
from graphnet.trace import first_nonfinite


@dataclass(frozen=True, slots=True)
class Steps:
    """A group of steps: the mean loss over them, and how fast they went."""

    epoch: int
    step: int
    loss: float
    lr: float
    steps_per_s: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """The end of an epoch: mean training loss, metrics on the validation set, training time so far."""

    epoch: int
    step: int
    loss: float
    metrics: Mapping[str, float]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was asked to stop and has, between two steps."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Decided:
    """The executor decided something in this step, such as to go on with a compiled plan."""

    step: int
    event: str
    message: str


Record = Steps | Epoch | Stopped | Decided


class Batches:
    """A data set packed once, in the layout or strides that the plan's input wants, and cut into batches.

    uint8 stays uint8 until a batch is made: then it becomes 0..1.
    """

    def __init__(
        self,
        tensor: Tensor,
        *,
        device: torch.device,
        dtype: torch.dtype,
        layout: Layout | None,
        channels_last: bool,
    ) -> None:
        if layout is not None:
            tensor = pack(tensor, layout)
        self.channels_last = channels_last and layout is None and tensor.ndim == 4
        if self.channels_last:
            tensor = tensor.permute(0, 2, 3, 1)  # N H W C
        self.tensor = tensor.contiguous().to(device)
        self.dtype = dtype

    def take(self, index: Tensor) -> Tensor:
        batch = self.tensor.index_select(0, index)
        if self.channels_last:
            batch = batch.permute(0, 3, 1, 2)
        if batch.dtype == torch.uint8:
            return batch.to(self.dtype).div_(255.0)
        return batch.to(self.dtype)


class Trainer:
    """One run of a job. `run` yields Steps and Epoch records, `checkpoint` is its state at any time.

    Raises DataError when the data does not fit the job.
    """

    def __init__(self, job: Job, *, resume: Checkpoint | None = None) -> None:
        config = job.config
        self.job = job
        self.device = resolve(config.device)
        self.pairs = job.train.load()
        self.validation = job.validation.load() if job.validation else None
        whole = config.batch_size * config.accumulate  # the pairs of one update
        if len(self.pairs) < whole:
            times = f" and accumulate {config.accumulate}" if config.accumulate > 1 else ""
            raise DataError(
                f"batch_size is {config.batch_size}{times}, but the data set has {len(self.pairs)} "
                f"pairs; lower batch_size or give more pairs"
            )
        self.steps_per_epoch = len(self.pairs) // whole * config.accumulate
        self.total_steps = self.steps_per_epoch * config.epochs
        self.program = self._compile(self.pairs, resume)
        self.loss_sum = 0.0
        self.elapsed_s = 0.0
        self._before: dict[str, Tensor] = {}
        if resume is not None:
            self._restore(resume)
        inputs, targets = (self.program.plan.values[name] for name in self.program.plan.inputs)
        # The target follows the prediction's strides, and those follow the input's.
        channels_last = torch.channels_last in (inputs.memory_format, targets.memory_format)

        def batches(tensor: Tensor, value: Value) -> Batches:
            return Batches(
                tensor,
                device=self.device,
                dtype=config.dtype,
                layout=value.layout,
                channels_last=channels_last,
            )

        self.inputs = batches(self.pairs.inputs, inputs)
        self.targets = batches(self.pairs.targets, targets)

    def _compile(self, pairs: Pairs, resume: Checkpoint | None) -> Program:
        config = self.job.config
        model = self.job.model if resume is None else self.job.model.with_weights(resume.weights)
        chosen = resume.training.get("refused", []) if resume is not None else []
        program = model.compile(
            (config.batch_size, *pairs.inputs.shape[1:]),
            loss=config.loss,
            optimizer=self.job.optimizer,
            parameters=config.parameters,
            clip_grad_norm=config.clip_grad_norm,
            ema=config.ema,
            accumulate=config.accumulate,
            device=self.device,
            dtype=config.dtype,
            precision=config.precision,
            kernels=config.kernels,
            keep=config.keep,
            memory=config.memory,
            without=config.without,
            autotune=config.autotune and resume is None,  # a resumed run keeps its choices
            refused=[(call, kernel) for call, kernel in chosen],
            executor=config.executor,
            seed=config.seed,
        )
        expected = plain_spec(program.plan.values[program.plan.inputs[-1]]).shape[1:]
        if tuple(pairs.targets.shape[1:]) != expected:
            raise DataError(
                f"the network makes {expected} of {tuple(pairs.inputs.shape[1:])}, but the targets are "
                f"{tuple(pairs.targets.shape[1:])}"
            )
        return program

    def _restore(self, saved: Checkpoint) -> None:
        training = saved.training
        mine = self.job.config.model_dump(mode="json")
        theirs = training.get("config", {})
        differing = [key for key in mine if mine[key] != theirs.get(key)]
        if differing:
            raise CheckpointError(
                f"the checkpoint was made with another configuration: {', '.join(differing)} differ. "
                f"Use the same file and settings, or start a new run."
            )
        self.program.restore(saved.training_state, steps_done=training["step"])
        self.program.turns.restore(training.get("executor", {}))
        self.loss_sum = training["loss_sum"]
        self.elapsed_s = training["elapsed_s"]

    @property
    def kernels(self) -> dict[str, str]:
        """Node -> the layer and kernel that computes it, for the log."""
        steps = (step.call for step in self.program.plan.steps)
        return {call.node: call.title for call in steps if call.kind in (Kind.LAYER, Kind.LOSS)}

    def checkpoint(self) -> Checkpoint:
        """Everything a resumed run needs."""
        training = {
            "step": self.program.steps_done,
            "loss_sum": self.loss_sum,
            "elapsed_s": self.elapsed_s,
            "config": self.job.config.model_dump(mode="json"),
            "kernels": self.kernels,
            "refused": self.program.plan.refused,
            "executor": self.program.turns.record(),
        }
        return Checkpoint(
            description=self.job.model.description,
            weights=self.program.model_weights,
            versions=versions_of(self.job.registry, self.job.model.description),
            training=training,
            training_state=self.program.training_state,
        )

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
        """Train to the end, or until `should_stop()` says so between two steps.

        Raises TrainingError when the loss is not finite: it says which step, node and plugin made the
        first value that is not. The weights are then those before that step.
        """
        config, program = self.job.config, self.program
        while program.steps_done < self.total_steps:
            epoch = program.steps_done // self.steps_per_epoch
            order = self.order(epoch)
            group = torch.zeros((), dtype=torch.float64, device=self.device)
            in_group, started = 0, time.perf_counter()
            while program.steps_done < (epoch + 1) * self.steps_per_epoch:
                if should_stop():
                    self._close_group(group, in_group, started)
                    yield Stopped(epoch + 1, program.steps_done)
                    return
                if in_group == 0:
                    self._remember()
                index = self._next_step(order)
                group += program.step_packed(self.inputs.take(index), self.targets.take(index))
                in_group += 1
                for event in program.turns.events():
                    yield Decided(program.steps_done, event.kind, event.message)
                if in_group == config.log_every or program.steps_done % self.steps_per_epoch == 0:
                    loss, elapsed_s = self._close_group(group, in_group, started)
                    yield Steps(
                        epoch + 1, program.steps_done, loss, program.lr, in_group / elapsed_s
                    )
                    group.zero_()
                    in_group, started = 0, time.perf_counter()
            mean = self.loss_sum / self.steps_per_epoch
            self.loss_sum = 0.0
            yield Epoch(epoch + 1, program.steps_done, mean, self.evaluate(), self.elapsed_s)

    def order(self, epoch: int) -> Tensor:
        """The samples of an epoch in order: a permutation drawn from (seed, epoch)."""
        generator = torch.Generator().manual_seed(self.job.config.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.pairs), generator=generator).to(self.device)

    def _next_step(self, order: Tensor) -> Tensor:
        """The samples of the next step; sets its learning rate."""
        size, done = self.job.config.batch_size, self.program.steps_done
        every = self.job.config.accumulate
        factor = self.job.schedule.factor(done // every, self.total_steps // every)
        self.program.lr = self.job.optimizer.lr * factor
        start = (done % self.steps_per_epoch) * size
        return order[start : start + size]

    @property
    def _slots(self) -> dict[str, Tensor]:
        return {**self.program.weights, **self.program.optimizer_state}

    def _remember(self) -> None:
        """Keep the weights as a group of steps begins, so that it can be run again step by step."""
        for name, tensor in self._slots.items():
            if name in self._before:
                self._before[name].copy_(tensor)
            else:
                self._before[name] = tensor.clone()

    def _origin(self, count: int) -> str:
        """Run the last `count` steps again, watching every value: where is the first bad one from?"""
        program = self.program
        for name, tensor in self._slots.items():
            tensor.copy_(self._before[name])
        program.rewind(program.steps_done - count)
        order = self.order(program.steps_done // self.steps_per_epoch)
        for _ in range(count):
            index = self._next_step(order)
            batch = self.inputs.take(index), self.targets.take(index)
            found = first_nonfinite(
                program.next_plan, program.packed_arguments(*batch), registry=self.job.registry
            )
            if found is not None:
                pairs = tuple(int(index[i]) for i in found.samples)
                return f"In step {program.steps_done + 1}, {replace(found, samples=pairs)}."
            program.step_packed(*batch)
        return "Run again, the same steps are finite: a layer is not deterministic."

    def _close_group(self, group: Tensor, count: int, started: float) -> tuple[float, float]:
        """Read the losses of a group back; returns their mean and the time since `started`."""
        if count == 0:
            return 0.0, 0.0
        total = float(group)  # waits for the device, once a group
        elapsed_s = time.perf_counter() - started
        self.elapsed_s += elapsed_s
        self.loss_sum += total
        if not math.isfinite(total):
            step = self.program.steps_done
            raise TrainingError(
                f"the loss is {total / count} within steps {step - count + 1} to {step} "
                f"(learning rate {self.program.lr:g}). {self._origin(count)} Lower the learning rate, "
                f"or mend the data. The last checkpoint is untouched."
            )
        return total / count, elapsed_s

    def evaluate(self) -> dict[str, float]:
        """The metrics on the validation set, with the weights as they are, or their averages."""
        if self.validation is None or not self.job.metrics:
            return {}
        outputs = predict_all(
            self.program.predict, self.validation.inputs, self.device, self.job.config.dtype
        )
        target = as_unit(self.validation.targets, self.job.config.dtype)
        return {name: metric(outputs, target) for name, metric in self.job.metrics.items()}


def as_unit(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 as 0..1, floating point as it is."""
    return tensor.to(dtype).div_(255.0) if tensor.dtype == torch.uint8 else tensor.to(dtype)


def predict_all(
    predict: Callable[[Tensor], Any],
    inputs: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_size: int = 128,
) -> Tensor:
    """A model's outputs for a whole data set, on the CPU, clamped to 0..1."""
    parts = [
        predict(as_unit(inputs[i : i + batch_size], dtype).to(device)).cpu()
        for i in range(0, len(inputs), batch_size)
    ]
    return torch.cat(parts).clamp_(0.0, 1.0)

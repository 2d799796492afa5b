"""Loop: the epochs of a program on a loader, their records and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint, Program, versions_of
from graphnet.sdk import Decided, Epoch, Metric, Record, Running, Schedule, Steps, as_given
from graphnet.training.evaluate import measure
from graphnet.training.loader import Fitted, Loader
from graphnet.training.loader_state import random_states, restore_random_states, resumed
from graphnet.training.means import Means
from graphnet.training.origin import Again, Origin
from graphnet.training.reports import Reports
from graphnet.training.resume import changed_kernels, kernels_of
from graphnet.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked arguments of `train`; `config` is the part that must be equal in a resumed run."""

    epochs: int
    log_every: int
    metrics: Mapping[str, Metric]
    schedule: Schedule | None
    config: Mapping[str, Any]


_MOST_BYTES = 256 * 2**20  # the batches of a group of steps that are kept, to run again


class _Group:
    """The losses of some steps, which stay on the device until `read`.

    `batches` are those of the steps, None if they take more than 256 MiB.
    """

    def __init__(self, device: torch.device) -> None:
        self._total = torch.zeros((), dtype=torch.float64, device=device)
        self.samples = self.steps = 0
        self._started = time.perf_counter()
        self.loss = self.elapsed_s = 0.0
        self.batches: list[Again] | None = []
        self._size_bytes = 0

    def add(self, loss: Tensor, samples: int, batch: Again) -> None:
        """Add the mean loss of a batch of `samples`."""
        self._total += loss.to(torch.float64) * samples
        self.samples += samples
        self.steps += 1
        self._size_bytes += sum(tensor.nbytes for tensor in batch.given)
        if self._size_bytes > _MOST_BYTES:
            self.batches = None
        elif self.batches is not None:
            self.batches.append(batch)

    def read(self) -> None:
        """Wait for the steps; set `loss`, the mean over the samples, and `elapsed_s`."""
        self.loss = float(self._total) / self.samples
        self.elapsed_s = time.perf_counter() - self._started


class Loop:
    """One training of a program: `records` trains."""

    def __init__(
        self,
        program: Program,
        loader: Loader,
        validation: Loader | None,
        settings: Settings,
        reports: Reports,
        folder: RunFolder | None,
    ) -> None:
        self.program = program
        self.loader = loader
        self.validation = validation
        self.settings = settings
        self.reports = reports
        self.folder = folder
        self.fitted = Fitted(program)
        self.lr = program.lr  # what the schedule multiplies
        self.steps = self.epochs_done = 0
        self.elapsed_s = 0.0
        self.notes: list[str] = []
        self.reported = Means()
        self.origin = Origin(program)

    def running(self) -> Running:
        """What reporters get to know of the training."""
        program, settings, folder = self.program, self.settings, self.folder
        higher = {name: metric.higher_is_better for name, metric in settings.metrics.items()}
        if self.validation is not None:
            higher["validation_loss"] = False
        running = Running(
            program.description.name,
            epochs=settings.epochs,
            steps_per_epoch=self.loader.length,
            step=self.steps,
            higher_is_better={**higher, "loss": False},
            facts={
                "config": settings.config,
                "versions": versions_of(program.registry, program.description),
                "device": str(program.device),
                "kernels": kernels_of(program),
                "passes": [change.name for change in program.plan.changes if change.has_effect],
                "data": self.loader.title,
            },
        )
        if folder is None:
            return running
        return replace(
            running, folder=folder.path, keep=lambda name: folder.keep(name, self.checkpoint())
        )

    def records(self) -> Iterator[Record]:
        """Train, and yield the records."""
        for note in self.notes:
            yield Decided(self.steps, "resumed", note)
        try:
            while self.epochs_done < self.settings.epochs:
                yield from self._epoch(self.epochs_done + 1)
        finally:
            self.program.lr = self.lr
        every = len(self.program.accumulation.order)
        if left := self.program.steps_done % every:
            yield Decided(
                self.steps,
                "accumulate",
                f"the last {left} steps have added up gradients for an update that {every - left} more steps "
                f"would make",
            )

    def _epoch(self, number: int) -> Iterator[Record]:
        program = self.program
        trained_s, waited_s = self.elapsed_s, self.loader.waited_s
        group, total, samples = _Group(program.device), 0.0, 0
        for batch in self.loader.epoch(number):
            fitted = self.fitted.program(batch)
            tensors = self.fitted.packed(batch, fitted)
            self._set_lr(self.steps)
            if not group.steps:
                self.origin.remember()
            loss = fitted.step_packed(*tensors)
            count = len(batch)
            group.add(loss, count, Again(fitted, as_given, tensors, range(count), batch.name))
            self.reported.add(fitted.report)
            self.steps += 1
            for event in fitted.accumulation.events():
                yield Decided(self.steps, event.kind, event.message)
            if group.steps == self.settings.log_every:
                yield self._close(group, number)
                total, samples = total + group.loss * group.samples, samples + group.samples
                group = _Group(program.device)
        if group.steps:
            yield self._close(group, number)
            total, samples = total + group.loss * group.samples, samples + group.samples
        metrics: dict[str, float] = {}
        if self.validation is not None:
            metrics = measure(program, self.validation, self.settings.metrics, epoch=number)
        self.epochs_done = number
        if number == self.settings.epochs:
            self.origin.check_updated()
        took_s = self.elapsed_s - trained_s
        waiting = (self.loader.waited_s - waited_s) / took_s if took_s else 0.0
        mean, scale = total / samples, program.loss_scale
        yield Epoch(number, self.steps, mean, metrics, self.elapsed_s, waiting, scale)

    def _set_lr(self, step: int) -> None:
        if (schedule := self.settings.schedule) is None:
            return
        assert self.loader.length is not None
        every = len(self.program.accumulation.order)
        updates = max(1, self.loader.length * self.settings.epochs // every)
        self.program.lr = self.lr * schedule.factor(min(step // every, updates - 1), updates)

    def _again(self, batches: Sequence[Again]) -> Iterator[Again]:
        """The last steps once more, each with its learning rate."""
        for step, batch in enumerate(batches, start=self.steps - len(batches)):
            self._set_lr(step)
            yield batch

    def _close(self, group: _Group, epoch: int) -> Steps:
        """Read a group's losses, and make its record. Raises TrainingError if they are not finite."""
        group.read()
        self.elapsed_s += group.elapsed_s
        batches = group.batches
        again = None if batches is None else partial(self._again, batches)
        self.origin.check(group.loss, group.steps, step=self.steps, again=again)
        speed, means = group.steps / group.elapsed_s, self.reported.take()
        return Steps(epoch, self.steps, group.loss, self.program.lr, speed, means)

    def checkpoint(self) -> Checkpoint:
        """Return everything that a resumed run needs, as far as a checkpoint can hold it."""
        training: dict[str, Any] = {
            "step": self.steps,
            "epochs_done": self.epochs_done,
            "steps_done": self.program.steps_done,
            "elapsed_s": self.elapsed_s,
            "config": self.settings.config,
            "kernels": kernels_of(self.program),
            "executor": self.program.accumulation.record(),
            "random": random_states(self.loader),
        }
        if states := self.reports.states():
            training["reporters"] = states
        return Checkpoint(
            description=self.program.description,
            weights=self.program.model_weights,
            versions=versions_of(self.program.registry, self.program.description),
            training=training,
            training_state=self.program.training_state,
        )

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint.

        Raises:
            CheckpointError: it is of another model or another training.
        """
        training, mine = saved.training, self.settings.config
        theirs = training.get("config", {})
        differing = [key for key in mine if mine[key] != theirs.get(key)]
        if differing:
            said = ", ".join(f"{key} {theirs.get(key)!r}, now {mine[key]!r}" for key in differing)
            raise CheckpointError(
                f"the checkpoint was made with {said}. Give the same, or start anew."
            )
        if saved.description.to_data() != self.program.description.to_data():
            raise CheckpointError(
                "the checkpoint was made with another model. Put the model back as it was, or start anew."
            )
        self.program.restore(
            saved.training_state, steps_done=training["steps_done"], weights=saved.weights
        )
        self.program.accumulation.restore(training.get("executor", {}))
        restore_random_states(self.loader, training.get("random", {}))
        self.steps, self.epochs_done = training["step"], training["epochs_done"]
        self.elapsed_s = training["elapsed_s"]
        self.notes.append(resumed(self.loader))
        if note := changed_kernels(training.get("kernels", {}), kernels_of(self.program)):
            self.notes.append(note)

"""Loop: the epochs of a program on a loader, their records and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint, Program, versions_of
from graphnet.sdk import Decided, Epoch, Metric, Record, Running, Schedule, Steps, as_given
from graphnet.training.evaluate import measure
from graphnet.training.group import Group
from graphnet.training.loader import Fitted, Loader
from graphnet.training.loader_state import random_states, restore_random_states, resumed
from graphnet.training.origin import Again, Origin
from graphnet.training.reports import Reports
from graphnet.training.resume import changed_kernels, kernels_of
from graphnet.training.run_folder import RunFolder
from graphnet.training.state import LoaderState


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked arguments of `train`; `config` is the part that must be equal in a resumed run."""

    epochs: int
    log_every: int
    metrics: Mapping[str, Metric]
    schedule: Schedule | None
    config: Mapping[str, Any]


_MOST_BYTES = 256 * 2**20  # the batches of a group of steps that are kept, to run again


class _Batches:
    """The batches of a group of steps, to run them again; None if they take more than 256 MiB."""

    def __init__(self) -> None:
        self.all: list[Again] | None = []
        self._size_bytes = 0

    def add(self, batch: Again) -> None:
        self._size_bytes += sum(tensor.nbytes for tensor in batch.given)
        if self._size_bytes > _MOST_BYTES:
            self.all = None
        elif self.all is not None:
            self.all.append(batch)


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
        group, batches, total, samples = Group(), _Batches(), 0.0, 0
        for batch in self.loader.epoch(number):
            fitted = self.fitted.program(batch)
            tensors = self.fitted.packed(batch, fitted)
            self._set_lr(self.steps)
            if not group.steps:
                self.origin.remember()
            loss = fitted.step_packed(*tensors)
            group.add(loss, fitted.report, len(batch))
            batches.add(Again(fitted, as_given, tensors, range(len(batch)), batch.name))
            self.steps += 1
            for event in fitted.accumulation.events():
                yield Decided(self.steps, event.kind, event.message)
            if group.steps == self.settings.log_every:
                yield self._close(group, batches, number)
                total, samples = total + group.total, samples + group.samples
                group, batches = Group(), _Batches()
        if group.steps:
            yield self._close(group, batches, number)
            total, samples = total + group.total, samples + group.samples
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

    def _close(self, group: Group, batches: _Batches, epoch: int) -> Steps:
        """Read a group's losses, and make its record. Raises TrainingError if they are not finite."""
        group.read()
        self.elapsed_s += group.elapsed_s
        again = None if batches.all is None else partial(self._again, batches.all)
        self.origin.check(group.loss, group.steps, step=self.steps, again=again)
        speed = group.steps / group.elapsed_s
        return Steps(epoch, self.steps, group.loss, self.program.lr, speed, group.reported)

    def checkpoint(self) -> Checkpoint:
        """Return everything that a resumed run needs, as far as a checkpoint can hold it."""
        state = LoaderState(
            step=self.steps,
            epochs_done=self.epochs_done,
            elapsed_s=self.elapsed_s,
            config=dict(self.settings.config),
            kernels=kernels_of(self.program),
            executor=self.program.accumulation.record(),
            reporters=self.reports.states(),
            steps_done=self.program.steps_done,
            random=random_states(self.loader),
        )
        return Checkpoint(
            description=self.program.description,
            weights=self.program.model_weights,
            versions=versions_of(self.program.registry, self.program.description),
            training=state.plain(),
            training_state=self.program.training_state,
        )

    def restore(self, saved: Checkpoint, state: LoaderState) -> None:
        """Continue from a checkpoint, whose state of the training has been checked.

        Raises:
            CheckpointError: it is of another model or another training.
        """
        mine, theirs = self.settings.config, state.config
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
            saved.training_state, steps_done=state.steps_done, weights=saved.weights
        )
        self.program.accumulation.restore(state.executor)
        restore_random_states(self.loader, state.random)
        self.steps, self.epochs_done = state.step, state.epochs_done
        self.elapsed_s = state.elapsed_s
        self.notes.append(resumed(self.loader))
        if note := changed_kernels(state.kernels, kernels_of(self.program)):
            self.notes.append(note)

"""Trainer: run the steps of a job, and yield a record of each group of steps and each epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from graphnet.description import loss_terms
from graphnet.errors import DataError, GraphError, InputError
from graphnet.model import SINGLE, Checkpoint, Joined, Program, plain_spec, versions_of
from graphnet.sdk import (
    Decided,
    Epoch,
    Gallery,
    Pairs,
    Record,
    Reporter,
    Running,
    Steps,
    Stopped,
    Stream,
)
from graphnet.training.agreement import Agreement
from graphnet.training.batches import BatchSource, MemoryBatches, PrefetchedBatches, steps_per_epoch
from graphnet.training.config import Job
from graphnet.training.datasets import check_sizes, to_measure_on, to_train_on
from graphnet.training.evaluate import score
from graphnet.training.fingerprint import fingerprint
from graphnet.training.group import Group
from graphnet.training.origin import Again, Origin
from graphnet.training.reports import Reports
from graphnet.training.resume import (
    changed_kernels,
    check_same_data,
    check_same_run,
    chosen_precision,
    kernels_of,
)
from graphnet.training.run_folder import RunFolder
from graphnet.training.samples import Samples
from graphnet.training.state import Fingerprint, TrainerState


class Trainer:
    """One run of a job: `run` trains and yields records, `checkpoint` returns the current state.

    Args:
        job: the training file with everything that it names.
        resume: the checkpoint of an earlier run that is continued.
        folder: where reporters write; None if no reporter of the job writes anything.
        reporters: get the records, besides those of the job.
        processes: those that train together, each with a trainer of the same job; the first has the folder
            and the reporters.

    Raises:
        DataError: the data does not fit the job.
        InputError: the processes cannot share a batch, or have different data, models or versions.
        CheckpointError: the checkpoint is of another job, model or data set.
    """

    def __init__(
        self,
        job: Job,
        *,
        resume: Checkpoint | None = None,
        folder: RunFolder | None = None,
        reporters: Sequence[Reporter] = (),
        processes: Joined = SINGLE,
    ) -> None:
        config = job.config
        self.job = job
        self.processes = processes
        self._notes: list[str] = []  # yielded as records before the first step of a resumed run
        self.device = job.options.target.device
        if len(outputs := job.model.description.outputs) > 1:
            raise DataError(
                f"a training file is for a model of one output, this one has {', '.join(outputs)}. From "
                f"Python, compile takes a loss for each, None for one that has none: loss={{output: loss}}."
            )
        if config.batch_size % processes.count:
            raise InputError(
                f"batch_size is {config.batch_size}, which {processes.count} processes cannot divide into "
                f"equal parts. Give a multiple of {processes.count}."
            )
        self.pairs = to_train_on(job.train)
        shape = self.pairs.input_shape
        self.validation = None if (held := job.validation) is None else to_measure_on(held, shape)
        state = None if resume is None else TrainerState.of(resume)
        if resume is not None and state is not None:
            self._notes += check_same_run(resume, state, job)
            self._notes += check_same_data(state, self._fingerprints)
            if isinstance(self.pairs, Samples):
                self._notes.append(self.pairs.resumed)
        if processes.count > 1:
            processes.check_data(str(self._fingerprints))
        accumulate = job.updates.accumulate
        if len(self.pairs) < config.batch_size * accumulate:  # the pairs of one update
            times = f" and accumulate {accumulate}" if accumulate > 1 else ""
            raise DataError(
                f"batch_size is {config.batch_size}{times}, but the data set has {len(self.pairs)} "
                f"pairs; lower batch_size or give more pairs"
            )
        self.steps_per_epoch = steps_per_epoch(len(self.pairs), config.batch_size, accumulate)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.precision = chosen_precision(job, state)
        self.program = self._compile(self.pairs, resume)
        self._lr = self.program.lr  # the optimizer's, which the schedule multiplies
        if isinstance(self.validation, Pairs) and job.metrics:
            first = loss_terms(config.loss, job.registry)[0]
            weights = self.program.weights
            check_sizes(job.model, self.validation, loss=first, weights=weights)
        self.epochs_done = 0
        self.loss_sum = 0.0
        self.elapsed_s = 0.0
        self._group = Group()
        if resume is not None and state is not None:
            self._restore(resume, state)
        # To find the divisor, graphs are built, which takes a while; only a gallery needs it.
        self._divisor = job.model.divisor() if isinstance(self.validation, Gallery) else 1
        self.feed = self._feed()
        self._origin = Origin(self.program, processes)
        self._agreement = Agreement(processes, every=accumulate)
        self.folder = folder
        states = {} if state is None else state.reporters
        reporting = [] if processes.rank else [*reporters, *job.reporters]
        self.reports = Reports(reporting, states, job.registry)

    def _feed(self) -> BatchSource:
        plan, config = self.program.plan, self.job.config
        seed, every = config.seed, self.job.updates.accumulate
        if isinstance(self.pairs, Pairs):
            return MemoryBatches(self.pairs, plan, seed=seed, every=every, processes=self.processes)
        return PrefetchedBatches(
            self.pairs,
            plan,
            seed=seed,
            steps=self.total_steps,
            predict=self.program.predict,
            every=every,
            processes=self.processes,
        )

    def _compile(self, pairs: Pairs | Stream, resume: Checkpoint | None) -> Program:
        config = self.job.config
        model = self.job.model if resume is None else self.job.model.with_weights(resume.weights)
        options = replace(self.job.options, precision=self.precision)
        try:
            program = model.compile(
                (config.batch_size // self.processes.count, *pairs.input_shape),
                loss=config.loss,
                options=options,
                executor=config.executor,
                seed=config.seed,
                processes=self.processes,
                **self.job.updates.configuration(),
            )
        except GraphError as error:
            named = config.data.train
            source = named if isinstance(named, str) else ", ".join(named)
            shape = "x".join(map(str, pairs.input_shape))
            raise GraphError(f"data.train ({source}) gives inputs of {shape}: {error}") from error
        plan = program.plan
        inputs = [plan.values[name] for name in plan.inputs]
        given, taken = list(pairs.target_shapes), [one.label for one in inputs if one.port]
        if given != taken:
            losses = self.job.registry.losses.items()
            fit = [n for n, entry in losses if [*entry.value.signature.tensors[2:]] == given[1:]]
            raise DataError(
                f"the data gives a loss {' and '.join(given)}, but {config.loss!r} takes "
                f"{' and '.join(taken)}. Losses that take the same: {', '.join(fit) or 'none'}."
            )
        for value in (one for one in inputs if one.port):
            spec, found = plain_spec(value), pairs.target_shapes[value.label]
            if spec.shape[1:] != found:
                raise DataError(
                    f"the data: with inputs {pairs.input_shape} of this network the loss takes a "
                    f"{value.label} {spec.shape[1:]}, but the data set's is {found}"
                )
        return program

    @functools.cached_property
    def _fingerprints(self) -> dict[str, Fingerprint]:
        """The fingerprints of the data sets, by their names in a training file."""
        loaded = {"train": self.pairs, "validation": self.validation}
        seed = self.job.config.seed
        return {
            name: fingerprint(data, seed=seed) for name, data in loaded.items() if data is not None
        }

    def _restore(self, saved: Checkpoint, state: TrainerState) -> None:
        self.program.restore(saved.training_state, steps_done=state.step)
        self.program.accumulation.restore(state.executor)
        self.epochs_done = state.epochs_done
        self.loss_sum = state.loss_sum
        self.elapsed_s = state.elapsed_s
        self._group = Group(state.group)
        self.processes.check_weights(saved.training_state)
        if note := changed_kernels(state.kernels, self.kernels):
            self._notes.append(note)

    @property
    def kernels(self) -> dict[str, str]:
        """The layer and kernel of each node, and the rule and kernel of each call for many parameters."""
        return kernels_of(self.program)

    def checkpoint(self) -> Checkpoint:
        """Return everything that a resumed run needs.

        If the optimizer's states are divided among processes, all of them call it, and that of the first has
        the states.
        """
        return replace(self.result(), training_state=self.program.training_state)

    def result(self) -> Checkpoint:
        """Return the trained model, without the tensors that only a resumed run needs."""
        state = TrainerState(
            step=self.program.steps_done,
            epochs_done=self.epochs_done,
            elapsed_s=self.elapsed_s,
            config=self.job.record(),
            kernels=self.kernels,
            executor=self.program.accumulation.record(),
            reporters=self.reports.states(),
            group=self._group.state(),
            loss_sum=self.loss_sum,
            precision=self.precision,
            data=self._fingerprints,
        )
        return Checkpoint(
            description=self.job.model.description,
            weights=self.program.model_weights,
            versions=versions_of(self.job.registry, self.job.model.description),
            training=state.plain(),
        )

    @property
    def facts(self) -> dict[str, object]:
        """The configuration, versions, device and kernels of the run, as plain data for its log."""
        return {
            "config": self.job.record(),
            "versions": versions_of(self.job.registry, self.job.model.description),
            "device": str(self.device),
            "precision": self.precision,
            "kernels": self.kernels,
            "passes": [change.name for change in self.program.plan.changes if change.has_effect],
            "pairs": len(self.pairs),
            "input": [self.job.config.batch_size, *self.pairs.input_shape],
            "steps_per_epoch": self.steps_per_epoch,
            "processes": self.processes.count,
        }

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Record]:
        """Train to the end, or until `should_stop()` or a reporter stops the run between two steps.

        Each record goes to the reporters, then it is yielded. The last Steps record of an epoch comes before
        the metrics are measured.

        Raises:
            TrainingError: the loss is not finite. The message names the step, node and plugin that computed
                the first value that is not finite. The weights are then those before that step.
        """
        records = self._records(should_stop)
        yield from self.reports.follow(self._running(), records, self.processes)

    def _running(self) -> Running:
        higher = {name: metric.higher_is_better for name, metric in self.job.metrics.items()}
        running = Running(
            self.job.model.description.name,
            epochs=self.job.config.epochs,
            steps_per_epoch=self.steps_per_epoch,
            step=self.program.steps_done,
            higher_is_better={**higher, "loss": False},
            facts=self.facts,
        )
        if (folder := self.folder) is None:
            return running
        return replace(
            running, folder=folder.path, keep=lambda name: folder.keep(name, self.result())
        )

    def _records(self, should_stop: Callable[[], bool]) -> Iterator[Record]:
        config, program = self.job.config, self.program
        for note in self._notes:
            yield Decided(program.steps_done, "resumed", note)
        while self.epochs_done < config.epochs:
            epoch = self.epochs_done
            trained_s, waited_s = self.elapsed_s, self.feed.waited_s
            while program.steps_done < (epoch + 1) * self.steps_per_epoch:
                group = self._group
                if self._agreement.stops(program.steps_done, should_stop):
                    self._read(group)
                    yield Stopped(epoch + 1, program.steps_done)
                    return
                if group.steps_here == 0:
                    self._origin.remember()
                for loss, reported in self._next_steps(group):
                    group.add(loss, reported)
                for event in program.accumulation.events():
                    yield Decided(program.steps_done, event.kind, event.message)
                if (
                    group.steps == config.log_every
                    or program.steps_done % self.steps_per_epoch == 0
                ):
                    yield self._close(group, epoch + 1)
            mean, took_s = self.loss_sum / self.steps_per_epoch, self.elapsed_s - trained_s
            waiting = (self.feed.waited_s - waited_s) / took_s if took_s else 0.0
            metrics = self.evaluate()
            self.epochs_done, self.loss_sum = epoch + 1, 0.0
            if self.epochs_done == config.epochs:
                self._origin.check_updated()
            numbers = mean, metrics, self.elapsed_s, waiting, program.loss_scale
            yield Epoch(epoch + 1, program.steps_done, *numbers)

    def _next_steps(self, group: Group) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Run the next step, or several if no record is due before their end; return what each reports."""
        program, at_once = self.program, self.program.steps_at_once
        epoch_left = self.steps_per_epoch - program.steps_done % self.steps_per_epoch
        left = min(self.job.config.log_every - group.steps, epoch_left)
        count = at_once if self.feed.in_memory and at_once <= left else 1
        steps = range(program.steps_done, program.steps_done + count)
        given = [self.feed.given(step) for step in steps]
        return program.steps_made(self.feed.made, given, lrs=[self._lr_of(step) for step in steps])

    def _lr_of(self, step: int) -> float:
        """The learning rate of a step; the first step is 0."""
        every = self.job.updates.accumulate
        return self._lr * self.job.schedule.factor(step // every, self.total_steps // every)

    def _again(self, count: int) -> Iterator[Again]:
        """The next steps once more, each when the one before it has run."""
        for _ in range(count):
            step = self.program.steps_done
            self.program.lr = self._lr_of(step)
            _, index = self.feed.samples(step)
            yield Again(self.program, self.feed.made, self.feed.given(step), index)

    def _read(self, group: Group) -> None:
        """Read the losses of a group from the device, which is done once for a group, and check them."""
        if group.steps_here:
            group.read()
            step, again = self.program.steps_done, partial(self._again, group.steps_here)
            self._origin.check(group.loss, group.steps_here, step=step, again=again)
            self.elapsed_s += group.elapsed_s

    def _close(self, group: Group, epoch: int) -> Steps:
        """Read a group, make its record, and begin the next one."""
        self._read(group)
        self.loss_sum += group.total
        self._group = Group()
        speed = group.steps_here / group.elapsed_s
        return Steps(
            epoch, self.program.steps_done, group.loss, self.program.lr, speed, group.reported
        )

    def evaluate(self) -> dict[str, float]:
        """Measure the metrics on the validation set, with the weights or their averages."""
        if self.validation is None or not self.job.metrics:
            return {}
        return score(
            self.validation,
            self.program.predict,
            self.job.metrics,
            device=self.device,
            dtype=self.feed.values[0].spec.dtype,
            target_dtype=self.feed.values[1].spec.dtype,
            divisor=self._divisor,
            processes=self.processes,
        )

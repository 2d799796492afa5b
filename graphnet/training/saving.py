"""Saving: writes the checkpoints of a training, in a thread of its own while steps go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Self

from torch import Tensor

from graphnet.sdk import Epoch, Record, Steps, Stopped
from graphnet.training.run_folder import RunFolder
from graphnet.training.trainer import Trainer


class Saving:
    """Saves the state of a training after each epoch, after `every_s` seconds, and when it has stopped.

    A copy of the tensors is made between two steps; the file is written in a thread. When the `with` block
    ends, the last checkpoint has been written.

    Args:
        trainer: the training.
        folder: where checkpoints are written; None in the other processes of a training, which take part in
            what the first process saves.

    Raises:
        CheckpointError: a checkpoint could not be written; at the next record, or at the end of the block.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder | None) -> None:
        self.trainer = trainer
        self.folder = folder
        self._every_s = trainer.job.config.checkpoints.every_s
        self._saved_at = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graphnet-checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()

    def record(self, record: Record) -> None:
        """Save the state if it is time to, given the last record of the training."""
        match record:
            # Before the metrics of an epoch are measured, since measuring may fail.
            case Steps() if record.step % self.trainer.steps_per_epoch == 0 or self._is_due(record):
                self.save()
            case Epoch() | Stopped():
                self.save()

    def _is_due(self, record: Steps) -> bool:
        job, processes = self.trainer.job, self.trainer.processes
        if self._every_s is None:
            return False
        if processes.count > 1 and record.step % job.updates.accumulate:
            return False  # each process has its own sums of gradients
        due = time.monotonic() - self._saved_at >= self._every_s
        if self.trainer.program.is_divided:  # all processes take part, at the times of the first
            due = bool(processes.greatest(int(due and self.folder is not None))[0])
        return due

    def save(self) -> None:
        """Save the state of this moment."""
        if self.folder is None:
            if self.trainer.program.is_divided:
                self.trainer.checkpoint()
            return
        self.wait()
        saved = self.folder.stamped(self.trainer.checkpoint())
        copy = replace(
            saved,
            weights=_copied(saved.weights),
            training_state=_copied(saved.training_state),
        )
        self._writing = self._thread.submit(self.folder.write, copy)
        self._saved_at = time.monotonic()

    def wait(self) -> None:
        """Wait until the last checkpoint has been written. Raises CheckpointError if it could not be."""
        if self._writing is not None:
            self._writing.result()


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

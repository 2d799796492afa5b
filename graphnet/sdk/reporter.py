"""Reporter: gets each record of a training while it runs, and can ask it to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition
from graphnet.sdk.records import Record


def _keeps_nothing(name: str) -> None:
    raise ContractError(f"{name} cannot be written: the training has no folder")


@dataclass(frozen=True, slots=True)
class Running:
    """What a reporter gets to know of the training when the training starts.

    Attributes:
        name: the name of the model.
        folder: the run's folder; None if the training has none, as with `Trainer(job)` in Python.
        epochs: the number of epochs of the whole training.
        steps_per_epoch: the number of steps of an epoch; None if the data is an iterable that does not say
            how many batches it has.
        step: the steps that are done already, in a resumed training.
        higher_is_better: for each metric of an Epoch record, and for "loss", whether higher is better.
        state: what `Report.state` returned for the checkpoint from which the training is resumed.
        facts: the configuration, the versions, the device, the kernels and so on, as plain data.
        keep: a function of a name, which writes the model with its present weights into the folder under this
            name.

    >>> running = Running("seed", epochs=2, steps_per_epoch=10, step=10)
    >>> f"{running.name}: step {running.step} of {running.epochs * running.steps_per_epoch}"
    'seed: step 10 of 20'
    >>> running.folder, running.higher_is_better, running.state, running.facts
    (None, {'loss': False}, {}, {})
    >>> running.keep("best")
    Traceback (most recent call last):
    graphnet.errors.ContractError: best cannot be written: the training has no folder
    """

    name: str
    folder: Path | None = None
    epochs: int = 1
    steps_per_epoch: int | None = 1
    step: int = 0
    higher_is_better: Mapping[str, bool] = field(default_factory=lambda: {"loss": False})
    state: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    keep: Callable[[str], None] = _keeps_nothing


class Report:
    """Base of what `Reporter.start` returns: it gets the records of one training, one after the other.

    >>> from graphnet.sdk import Steps
    >>> class Patience(Report):
    ...     seen = 0
    ...
    ...     def record(self, record):
    ...         self.seen += 1
    ...         return "it has seen enough" if self.seen == 2 else None
    ...
    ...     def state(self):
    ...         return {"seen": self.seen}
    ...
    ...     def close(self):
    ...         print("closed")
    >>> report = Patience()
    >>> steps = Steps(epoch=1, step=1, loss=0.5, lr=0.1, steps_per_s=9.0)
    >>> report.record(steps), report.record(steps), report.state()
    (None, 'it has seen enough', {'seen': 2})
    >>> report.close()
    closed
    """

    def record(self, record: Record) -> str | None:
        """Take a record, which is a Steps, Epoch, Decided or Stopped.

        Returns:
            The reason why the training has to stop now, as a text; None if it continues.
        """
        return None

    def state(self) -> Mapping[str, Any]:
        """Return what a resumed training needs of this report: plain data, which JSON can hold."""
        return {}

    def close(self) -> None:
        """Called once, when the training ends, also if an error ends it."""


class Reporter(Definition):
    """A definition of what is done with the records of a training; a subclass defines `start`.

    >>> class Printed(Reporter):
    ...     def start(self, running):
    ...         return PrintedReport()
    >>> class PrintedReport(Report):
    ...     def record(self, record):
    ...         print(record)
    >>> Printed().start(Running("seed")).record("an epoch")
    an epoch
    """

    def start(self, running: Running) -> Report:
        """Begin to report on a training.

        Args:
            running: the training.
        """
        raise ContractError(f"{type(self).__name__} defines no start(running)")

"""Records: what a training reports while it runs; reporters get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Steps:
    """A group of steps: their mean loss and their speed.

    Attributes:
        epoch: the epoch, from 1.
        step: the last step of the group, counted from the start of the run.
        loss: the mean loss of the group.
        lr: the learning rate of its last step.
        steps_per_s: the speed.
        reported: the means of what `report` in the training file names, such as each loss of a sum.

    >>> steps = Steps(epoch=1, step=100, loss=0.25, lr=0.1, steps_per_s=80.0)
    >>> steps.step, steps.reported
    (100, {})
    """

    epoch: int
    step: int
    loss: float
    lr: float
    steps_per_s: float
    reported: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The end of an epoch: its mean training loss, and the metrics on the validation set.

    Attributes:
        epoch: the epoch, from 1.
        step: the number of steps that are done.
        loss: the mean loss of the epoch.
        metrics: the metrics by name.
        elapsed_s: the training time of the run so far.
        waiting: the share of the epoch's training time, 0 to 1, in which steps waited for their data.
        loss_scale: `Program.loss_scale`; None outside float16.

    >>> epoch = Epoch(epoch=1, step=100, loss=0.25, metrics={"psnr": 30.0}, elapsed_s=2.0)
    >>> epoch.metrics["psnr"], epoch.waiting, epoch.loss_scale
    (30.0, 0.0, None)
    """

    epoch: int
    step: int
    loss: float
    metrics: Mapping[str, float]
    elapsed_s: float
    waiting: float = 0.0
    loss_scale: float | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run has stopped between two steps: somebody asked for it, or a reporter gave a `reason`.

    Attributes:
        epoch: the epoch, from 1.
        step: the last step, counted from the start of the run.
        reason: what the reporter said; empty if it was no reporter.

    >>> Stopped(epoch=1, step=50, reason="early_stopping: loss has not become better").step
    50
    """

    epoch: int
    step: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """An event of this step, for the log: the executor changed to a compiled plan, or a run was resumed.

    Attributes:
        step: the step.
        event: what happened, in one word.
        message: the same in a sentence.

    >>> Decided(step=3, event="kernels", message="now inductor").event
    'kernels'
    """

    step: int
    event: str
    message: str


Record = Steps | Epoch | Stopped | Decided

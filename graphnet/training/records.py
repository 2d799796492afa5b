"""Records: what a training reports while it runs; the command line prints and logs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Steps:
    """A group of steps: their mean loss and their speed."""

    epoch: int
    step: int
    loss: float
    lr: float
    steps_per_s: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """The end of an epoch: its mean training loss, and the metrics on the validation set.

    `elapsed_s` is the training time of the run so far. `waiting` is the share of the epoch's training time,
    0 to 1, in which steps waited for their data. `loss_scale` is `Program.loss_scale`.
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
    """The run has stopped between two steps, because it was asked to."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Decided:
    """An event of this step, for the log: the executor changed to a compiled plan, or a run was resumed."""

    step: int
    event: str
    message: str


Record = Steps | Epoch | Stopped | Decided

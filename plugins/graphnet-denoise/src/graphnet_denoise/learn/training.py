"""Train within a number of minutes: measure the speed of a step, set the length, keep the best model."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from graphnet.model import Model
from graphnet.sdk import Epoch, Registry, Reporter, Steps, Stopped
from graphnet.training import RunFolder, Trainer, read_job
from graphnet_denoise.learn.recipe import BATCH, EPOCHS, RECIPE, Length

BEST = "best.safetensors"

_WARM_UP, _TIMED = 4, 8  # steps by which the speed is measured
_MARGIN = (
    0.94  # of the time is planned for steps; the rest is for measuring, and for other programs
)


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training went.

    Attributes:
        model: the best model.
        steps: how many steps were trained.
        epoch: the epoch of the best model; None if nothing was held out.
        score: its held-out score in dB; None if nothing was held out.
        stopped: why the training ended before its last step; None if it did not.
    """

    model: Model
    steps: int
    epoch: int | None
    score: float | None
    stopped: str | None


def step_seconds(config: Path, registry: Registry) -> float:
    """Measure the time of a training step, by a few steps of a training that is thrown away."""
    steps = _WARM_UP + _TIMED
    settings = [
        "epochs=1",
        f"data.train.scenes.per_epoch={steps * BATCH}",
        f"log_every={_WARM_UP}",
        "reporters=[]",
        "metrics=[]",
    ]
    trainer = Trainer(read_job(config, settings=settings, registry=registry))
    records = [record for record in trainer.run() if isinstance(record, Steps)]
    return min(1 / record.steps_per_s for record in records[1:])


def plan_length(seconds: float, step_s: float) -> Length:
    """The length of a training that takes these seconds, if a step takes `step_s`.

    >>> plan_length(600, 0.1).steps
    5640
    """
    return whole_length(max(1, int(_MARGIN * seconds / step_s)))


def whole_length(steps: int) -> Length:
    """The length of a training of so many steps, in as many epochs of equal length as can be.

    >>> whole_length(50)
    Length(epochs=20, steps_per_epoch=2)
    """
    epochs = min(EPOCHS, steps)
    return Length(epochs, steps // epochs)


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Give the block a function that says whether Ctrl-C was pressed; pressing it twice interrupts."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def train(
    folder: RunFolder,
    registry: Registry,
    *,
    should_stop: Callable[[], bool],
    reporters: Sequence[Reporter] = (),
    settings: Sequence[str] = (),
) -> Trained:
    """Train as the run's training file says, or until `should_stop()`.

    The best model by the held-out score is written as model.safetensors; without a score, the last one.
    """
    job = read_job(folder.path / RECIPE, settings=settings, registry=registry)
    trainer = Trainer(job, folder=folder, reporters=reporters)
    best: tuple[int, float] | None = None
    stopped: str | None = None
    for record in trainer.run(should_stop):
        match record:
            case Epoch():
                best = _better(best, record.epoch, record.metrics)
            case Stopped():
                stopped = record.reason or "it was asked to"
                if not record.reason:  # in the middle of an epoch, so nobody has measured it
                    metrics = trainer.evaluate()
                    now = _better(best, record.epoch, metrics)
                    if now != best:
                        folder.keep(BEST, trainer.checkpoint())
                    best = now
    steps = trainer.program.steps_done
    if best is None:
        folder.finish(trainer.checkpoint())
        return Trained(Model.load(folder.model_path, registry=registry), steps, None, None, stopped)
    (folder.path / BEST).replace(folder.model_path)
    return Trained(Model.load(folder.model_path, registry=registry), steps, *best, stopped)


def _better(
    best: tuple[int, float] | None, epoch: int, metrics: Mapping[str, Any]
) -> tuple[int, float] | None:
    """The epoch with the better held-out score, and the score."""
    for value in metrics.values():
        if best is None or value > best[1]:
            return epoch, float(value)
    return best

"""Train within a number of minutes: measure the speed of a step, set the length, keep the best model."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet.errors import TrainingError
from graphnet.model import Model
from graphnet.sdk import Epoch, Registry, Reporter, Steps, Stopped
from graphnet.training import RunFolder, Trainer, read_job
from graphnet_denoise.learning.recipe import BATCH, EPOCHS, LOG_EVERY, RECIPE, Length

NO_STEP = "the training was stopped before its first step, so there is no model."

_WARM_UP, _TIMED = 4, 8  # steps by which the speed is measured
_TOLD_S = 2.0  # about so often, a training says how far it is
_MARGIN = (
    0.94  # of the time is planned for steps; the rest is for measuring, and for other programs
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is.

    Attributes:
        step: how many steps are done.
        steps: of how many.
        score: the last held-out score in dB; None before the first, and if nothing is held out.
        best: the best held-out score so far.
        left_s: the time that is left, in seconds.

    >>> str(Progress(240, 1200, 31.25, 31.3, 245.0))
    'step 240 of 1200, held-out score 31.25 dB (best 31.30), about 4 min left'
    """

    step: int
    steps: int
    score: float | None
    best: float | None
    left_s: float

    def __str__(self) -> str:
        score = ""
        if self.score is not None and self.best is not None:
            score = f"held-out score {self.score:.2f} dB (best {self.best:.2f}), "
        left = f"{self.left_s / 60:.0f} min" if self.left_s >= 90 else f"{self.left_s:.0f} s"
        return f"step {self.step} of {self.steps}, {score}about {left} left"


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


def step_seconds(
    config: Path, registry: Registry, *, should_stop: Callable[[], bool] = lambda: False
) -> float:
    """Measure the time of a training step, by a few steps of a training that is thrown away.

    Raises TrainingError if `should_stop()`.
    """
    steps = _WARM_UP + _TIMED
    settings = [
        "epochs=1",
        f"data.train.scenes.per_epoch={steps * BATCH}",
        f"log_every={_WARM_UP}",
        "reporters=[]",
        "metrics=[]",
    ]
    trainer = Trainer(read_job(config, settings=settings, registry=registry))
    records = list(trainer.run(should_stop))
    if isinstance(records[-1], Stopped):
        raise TrainingError(NO_STEP)
    return min(1 / record.steps_per_s for record in records[1:] if isinstance(record, Steps))


def plan_length(seconds: float, step_s: float) -> Length:
    """The length of a training that takes these seconds, if a step takes `step_s`.

    >>> plan_length(600, 0.1).steps
    5640
    """
    often = min(LOG_EVERY, max(1, round(_TOLD_S / step_s)))
    return whole_length(max(1, int(_MARGIN * seconds / step_s)), log_every=often)


def whole_length(steps: int, *, log_every: int = LOG_EVERY) -> Length:
    """The length of a training of so many steps, in as many epochs of equal length as can be.

    >>> whole_length(50)
    Length(epochs=20, steps_per_epoch=2, log_every=100)
    """
    epochs = min(EPOCHS, steps)
    return Length(epochs, steps // epochs, log_every)


def train(
    folder: RunFolder,
    registry: Registry,
    *,
    end: float,
    should_stop: Callable[[], bool],
    reporters: Sequence[Reporter] = (),
) -> Generator[Progress, None, Trained]:
    """Train as the run's training file says, and yield how far it is.

    It ends with the last step, after one step at least when `time.monotonic()` is over `end`, or when
    `should_stop()`. The best model by the held-out score is written as model.safetensors, also if the
    generator is closed or an error ends it; without a score, the last model.

    Raises TrainingError if it was stopped before the first step.
    """
    trainer = Trainer(
        read_job(folder.path / RECIPE, registry=registry), folder=folder, reporters=reporters
    )
    program = trainer.program
    best: tuple[int, float] | None = None
    score: float | None = None
    stopped: str | None = None
    left_s = max(0.0, end - time.monotonic())

    def over() -> bool:
        return program.steps_done > 0 and time.monotonic() > end

    try:
        for record in trainer.run(lambda: should_stop() or over()):
            match record:
                case Steps():
                    planned = (trainer.total_steps - record.step) / record.steps_per_s
                    left_s = max(0.0, min(planned, end - time.monotonic()))
                case Epoch():
                    best = _better(best, record.epoch, record.metrics)
                    score = next(iter(record.metrics.values()), None)
                case Stopped():
                    asked = "the time is over" if over() else "a stop was requested"
                    stopped = record.reason or asked
                    if not record.reason and program.steps_done:  # nobody has measured it here
                        now = _better(best, record.epoch, trainer.evaluate())
                        if now != best:
                            folder.keep(RunFolder.BEST, trainer.checkpoint())
                        best = now
            if not isinstance(record, Steps | Epoch):
                continue
            yield Progress(program.steps_done, trainer.total_steps, score, best and best[1], left_s)
    finally:
        if best is not None:
            (folder.path / RunFolder.BEST).replace(folder.model_path)
        elif program.steps_done:
            folder.finish(trainer.checkpoint())
    if not program.steps_done:
        raise TrainingError(NO_STEP)
    model = Model.load(folder.model_path, registry=registry)
    epoch, highest = best or (None, None)
    return Trained(model, program.steps_done, epoch, highest, stopped)


def _better(
    best: tuple[int, float] | None, epoch: int, metrics: Mapping[str, Any]
) -> tuple[int, float] | None:
    """The epoch with the better held-out score, and the score."""
    for value in metrics.values():
        if best is None or value > best[1]:
            return epoch, float(value)
    return best

"""Reporters: the log, TensorBoard, early stopping and the best checkpoint."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import NonNegativeFloat, PositiveInt

from graphnet.errors import DescriptionError, Problem, TrainingError, nearest
from graphnet.sdk import (
    Decided,
    Epoch,
    Record,
    Register,
    Report,
    Reporter,
    Running,
    Steps,
    Stopped,
    hookimpl,
)
from graphnet.training.run_folder import RunFolder, append

_KINDS = {Steps: "steps", Epoch: "epoch", Decided: "executor", Stopped: "stopped"}


class Log(Reporter):
    """Appends each record as a line of JSON to log.jsonl in the run's folder."""

    def start(self, running: Running) -> Report:
        path = _folder(running) / RunFolder.LOG
        append(path, "start", {"step": running.step, **running.facts})
        return _LogReport(path)


class _LogReport(Report):
    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, record: Record) -> None:
        append(self.path, _KINDS[type(record)], asdict(record))


class TensorBoard(Reporter):
    """Writes losses, learning rates, speeds and metrics for TensorBoard, into the run's folder.

    It needs the package tensorboard: pip install 'graphnet-framework[tensorboard]'.
    """

    folder: str = "tensorboard"

    def start(self, running: Running) -> Report:
        try:
            module = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise TrainingError(
                f"the package tensorboard cannot be imported ({error}): "
                f"pip install 'graphnet-framework[tensorboard]'"
            ) from error
        return _TensorBoardReport(module.SummaryWriter(str(_folder(running) / self.folder)))


class _TensorBoardReport(Report):
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def record(self, record: Record) -> None:
        match record:
            case Steps():
                numbers = {"loss": record.loss, "lr": record.lr, "steps_per_s": record.steps_per_s}
                numbers |= record.reported
            case Epoch():
                numbers = {"epoch/loss": record.loss}
                numbers |= {f"metrics/{name}": value for name, value in record.metrics.items()}
            case _:
                return
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, record.step)

    def close(self) -> None:
        self.writer.close()


class EarlyStopping(Reporter):
    """Stops the training once a metric has not become better for `patience` epochs.

    `metric` is one of the training file's metrics, or "loss", the mean loss of an epoch's steps. A change of
    less than `least` does not count.
    """

    metric: str = "loss"
    patience: PositiveInt = 10
    least: NonNegativeFloat = 0.0

    def start(self, running: Running) -> Report:
        return _EarlyStoppingReport(self, _Best(self.metric, running, least=self.least))


class _EarlyStoppingReport(Report):
    def __init__(self, settings: EarlyStopping, best: _Best) -> None:
        self.settings = settings
        self.best = best

    def record(self, record: Record) -> str | None:
        if not isinstance(record, Epoch):
            return None
        self.best.improved(record)
        waited = record.epoch - self.best.epoch
        if waited < self.settings.patience:
            return None
        return (
            f"{self.settings.metric} has not become better for {waited} epochs; the best is "
            f"{self.best.value:g}, of epoch {self.best.epoch}"
        )

    def state(self) -> Mapping[str, Any]:
        return self.best.state()


class BestCheckpoint(Reporter):
    """Keeps the model of the epoch in which a metric was best, as best.safetensors in the run's folder.

    `metric` is one of the training file's metrics, or "loss".
    """

    metric: str = "loss"
    file: str = RunFolder.BEST

    def __post_init__(self) -> None:
        name, own = Path(self.file).name, (RunFolder.CHECKPOINT, RunFolder.MODEL)
        if name != self.file or not name.endswith(".safetensors") or name in own:
            message = (
                f"expected a name such as {RunFolder.BEST}, without a folder, that is none of the run's own "
                f"files ({', '.join(own)}), found {self.file!r}"
            )
            raise DescriptionError([Problem(message, "file")])

    def start(self, running: Running) -> Report:
        _folder(running)
        return _BestCheckpointReport(self.file, running, _Best(self.metric, running))


class _BestCheckpointReport(Report):
    def __init__(self, file: str, running: Running, best: _Best) -> None:
        self.file = file
        self.running = running
        self.best = best

    def record(self, record: Record) -> None:
        if isinstance(record, Epoch) and self.best.improved(record):
            self.running.keep(self.file)

    def state(self) -> Mapping[str, Any]:
        return self.best.state()


class _Best:
    """The best value of a metric so far, and its epoch; 0 and NaN before the first."""

    def __init__(self, metric: str, running: Running, *, least: float = 0.0) -> None:
        if metric not in running.higher_is_better:
            raise TrainingError(
                f"the training has no metric {metric!r}. {nearest(metric, running.higher_is_better)}"
            )
        self.metric = metric
        self.sign = 1.0 if running.higher_is_better[metric] else -1.0
        self.least = least
        self.epoch = int(running.state.get("epoch", 0))
        self.value = float(running.state.get("value", math.nan))

    def improved(self, record: Epoch) -> bool:
        """Whether an epoch is better than all before it; if so it is the best from now on."""
        value = record.loss if self.metric == "loss" else record.metrics[self.metric]
        better = math.isnan(self.value) or self.sign * (value - self.value) > self.least
        if math.isnan(value) or not better:
            return False
        self.epoch, self.value = record.epoch, value
        return True

    def state(self) -> Mapping[str, Any]:
        return {"epoch": self.epoch, "value": self.value} if self.epoch else {}


def _folder(running: Running) -> Path:
    if running.folder is None:
        raise TrainingError("needs a folder: give Trainer one, with folder=RunFolder(path)")
    return running.folder


@hookimpl
def graphnet_reporters(register: Register) -> None:
    register("log", Log)
    register("tensorboard", TensorBoard)
    register("early_stopping", EarlyStopping)
    register("best_checkpoint", BestCheckpoint)

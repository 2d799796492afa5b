"""Progress: the reporter that shows a bar, and prints a line for each epoch."""

from __future__ import annotations

import sys

from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from graphnet.cli import make_console
from graphnet.sdk import Decided, Epoch, Record, Report, Reporter, Running, Steps

_LEAST_WAITING = 0.05  # a smaller share of time spent waiting for data is not printed


class Progress(Reporter):
    """Shows a progress bar on stderr if that is a terminal, and prints a line for each epoch."""

    def start(self, running: Running) -> Report:
        return _ProgressReport(running)


class _ProgressReport(Report):
    def __init__(self, running: Running) -> None:
        columns = (
            TextColumn("epoch {task.fields[epoch]}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn(
                "{task.fields[rate]} step/s  loss {task.fields[loss]}  {task.fields[metric]}",
                markup=False,
            ),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.epochs = running.epochs
        steps = running.steps_per_epoch
        first = 1 if steps is None else running.step // steps + 1
        self.bar = Bar(*columns, console=make_console(stderr=True), disable=not sys.stderr.isatty())
        self.task = self.bar.add_task(
            "train",
            total=None if steps is None else running.epochs * steps,
            completed=running.step,
            epoch=f"{min(first, self.epochs)}/{self.epochs}",
            rate="-",
            loss="-",
            metric="",
        )
        self.bar.start()

    def record(self, record: Record) -> None:
        match record:
            case Steps():
                self.bar.update(
                    self.task,
                    completed=record.step,
                    epoch=f"{record.epoch}/{self.epochs}",
                    rate=f"{record.steps_per_s:.1f}",
                    loss=f"{record.loss:.5f}",
                )
            case Epoch():
                metrics = "  ".join(f"{k} {v:.4g}" for k, v in record.metrics.items())
                waiting = f", {record.waiting:.0%} of it waiting for data"
                scale = record.loss_scale
                self.bar.update(self.task, metric=metrics)
                self.bar.console.print(
                    f"epoch {record.epoch}/{self.epochs}  loss {record.loss:.5f}  {metrics}  "
                    f"{record.elapsed_s:.1f} s of training"
                    f"{waiting if record.waiting > _LEAST_WAITING else ''}"
                    f"{'' if scale is None else f', loss scale {scale:g}'}"
                )
            case Decided():
                self.bar.console.print(f"step {record.step}: {record.message}")

    def close(self) -> None:
        self.bar.stop()

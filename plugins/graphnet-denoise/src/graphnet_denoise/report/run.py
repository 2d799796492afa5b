"""Run: what the log of a training run says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphnet.errors import CheckpointError
from graphnet.training import RunFolder

_MODELS = (RunFolder.BEST, RunFolder.MODEL, RunFolder.CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Run:
    """A training run.

    Attributes:
        path: its folder.
        start: the record with which the log begins: configuration, versions, device.
        steps: a record for each group of steps: step, loss, lr, steps_per_s.
        epochs: a record for each epoch: epoch, step, loss, metrics, elapsed_s.
        stopped: why the run was stopped; empty if it was not.
    """

    path: Path
    start: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = field(default=())
    epochs: Sequence[Mapping[str, Any]] = field(default=())
    stopped: str = ""

    @property
    def config(self) -> Mapping[str, Any]:
        """The training file, with its defaults."""
        found: Mapping[str, Any] = self.start.get("config", {})
        return found

    @property
    def model(self) -> Path | None:
        """The best model that the run has written, else the last one; None if it has none yet."""
        return next((self.path / name for name in _MODELS if (self.path / name).exists()), None)


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run: it has a log or a model; a run that begins has neither."""
    return (path / RunFolder.LOG).exists() or Run(path).model is not None


def read_run(path: Path) -> Run:
    """Read the log of a run. Raises CheckpointError if the folder has none, or one that is damaged.

    A last line that is not finished, since the run is still writing it, does not count.
    """
    log = path / RunFolder.LOG
    try:
        text = log.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: expected the folder of a training run, with {RunFolder.LOG} ({error}). Give the folder "
            f"that --run named, such as runs/NAME."
        ) from None
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            records.append({**record, "kind": record["kind"]})
        except (ValueError, TypeError, KeyError):
            raise CheckpointError(
                f"{log}:{number}: not a record of a log. Delete the line."
            ) from None
    of = {
        kind: [r for r in records if r["kind"] == kind]
        for kind in ("start", "steps", "epoch", "stopped")
    }
    stopped = of["stopped"][-1] if of["stopped"] else {}
    return Run(
        path,
        of["start"][-1] if of["start"] else {},
        of["steps"],
        of["epoch"],
        str(stopped.get("reason") or "stopped") if stopped else "",
    )

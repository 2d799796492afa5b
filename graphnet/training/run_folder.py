"""RunFolder: the files of a training run: log.jsonl, checkpoint.safetensors and model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint, read_checkpoint, write_checkpoint
from graphnet.system import finite, write_text


class RunFolder:
    """The folder of one training run. The log starts empty unless the run is resumed.

    Args:
        path: the folder; it is made if it does not exist.
        resume: whether to continue the run in this folder.

    Raises:
        CheckpointError: the folder cannot be made, has no checkpoint to resume from, or already has the
            checkpoint of another run.
    """

    LOG: ClassVar = "log.jsonl"
    CHECKPOINT: ClassVar = "checkpoint.safetensors"
    MODEL: ClassVar = "model.safetensors"
    BEST: ClassVar = "best.safetensors"
    """The name under which the reporter `best_checkpoint` keeps a model, if it is told no other."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self.log_path = path / self.LOG
        self.checkpoint_path = path / self.CHECKPOINT
        self.model_path = path / self.MODEL
        if resume and not self.checkpoint_path.exists():
            raise CheckpointError(
                f"{path}: no checkpoint to resume from. Leave out --resume to start."
            )
        if not resume and self.checkpoint_path.exists():
            raise CheckpointError(
                f"{path}: already holds a run. Continue it with --resume, or choose another --run."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.log_path.open("a" if resume else "w").close()
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be written: {error.strerror}. Choose another --run."
            ) from None

    def resume(self) -> Checkpoint:
        """Read the last checkpoint, and delete the log's records of later steps.

        Raises:
            CheckpointError: the file cannot be read, or is not a checkpoint of a training.
        """
        saved = read_checkpoint(self.checkpoint_path)
        step = saved.training.get("step")
        if not isinstance(step, int):
            raise CheckpointError(f"{self.checkpoint_path}: not a checkpoint of a training run")
        lines = self.log_path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for i, line in enumerate(whole, start=1) if self._step(line, i) <= step]
        write_text(self.log_path, "".join(kept))
        return saved

    def _step(self, line: str, number: int) -> int:
        """The step of a line of the log."""
        try:
            return int(json.loads(line).get("step", 0))
        except (ValueError, TypeError, AttributeError):
            raise CheckpointError(
                f"{self.log_path}:{number}: not a record of a log. Delete the line, then resume again."
            ) from None

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        """Append a record to the log, as `append` does."""
        append(self.log_path, kind, record)

    def save(self, saved: Checkpoint) -> None:
        """Write the checkpoint, completely or not at all."""
        write_checkpoint(self.checkpoint_path, saved)

    def finish(self, saved: Checkpoint) -> None:
        """Write the trained model: weights, description and configuration, without the training state."""
        self.keep(self.model_path.name, saved)

    def keep(self, name: str, saved: Checkpoint) -> None:
        """Write the model of a checkpoint, as `finish` does, under another name."""
        kept = ("config", "precision", "step")
        recipe = {key: saved.training[key] for key in kept if key in saved.training}
        model = replace(saved, training=recipe, training_state={})
        write_checkpoint(self.path / name, model)


def append(path: Path, kind: str, record: Mapping[str, Any]) -> None:
    """Append a record to a log, one line of JSON; a number that is not finite becomes null.

    Raises CheckpointError if the log cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite({"kind": kind, **record}), allow_nan=False) + "\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None

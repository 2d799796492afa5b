"""RunFolder: the files of a training run: its log, its last checkpoints and the trained model.

log.jsonl                 a line of JSON for each record; only the training that owns the folder writes it
checkpoint.safetensors    the last checkpoint
checkpoint-1.safetensors  the one before it, and so on
model.safetensors         the trained model
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from filelock import FileLock, Timeout

from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint, read_checkpoint, write_checkpoint
from graphnet.system import finite, sweep

_OLDER = re.compile(r"checkpoint-([1-9]\d{0,5})\.safetensors", re.ASCII)
_READ = 1 << 16


class RunFolder:
    """The folder of one training run, which belongs to this training until `close`, or the process ends.

    Args:
        path: the folder; it is made if it does not exist.
        resume: whether to continue the run in this folder. If not, the log starts empty.
        keep: how many checkpoints are kept.

    Raises:
        CheckpointError: another training runs in the folder; the folder cannot be made; it has no checkpoint
            to resume from, or already has the checkpoint of another run.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place, RunFolder(Path(place, "run"), resume=False) as run:
    ...     run.log("start", {"step": 0})
    ...     print(run.log_path.read_text(), end="")
    {"kind": "start", "step": 0}
    """

    LOG: ClassVar = "log.jsonl"
    CHECKPOINT: ClassVar = "checkpoint.safetensors"
    MODEL: ClassVar = "model.safetensors"
    BEST: ClassVar = "best.safetensors"
    """The name under which the reporter `best_checkpoint` keeps a model, if it is told no other."""

    _LOCK: ClassVar = ".lock"

    def __init__(self, path: Path, *, resume: bool, keep: int = 2) -> None:
        self.path = path
        self.log_path = path / self.LOG
        self.checkpoint_path = path / self.CHECKPOINT
        self.model_path = path / self.MODEL
        self._keep = keep
        self.notes: list[str] = []
        """What `resume` has found: sentences for the log."""
        self.resumed: Path | None = None
        """The checkpoint that `resume` has read."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / self._LOCK, timeout=0)
            self._lock.acquire()
        except Timeout:
            raise CheckpointError(
                f"{path}: another training is running in this folder. Wait until it ends, or choose another "
                f"--run."
            ) from None
        except OSError as error:
            raise _cannot_write(path, error) from None
        try:
            self._take(resume=resume)
        except BaseException:
            self.close()
            raise

    def _take(self, *, resume: bool) -> None:
        sweep(self.path)
        if resume and not checkpoints_in(self.path):
            raise CheckpointError(
                f"{self.path}: no checkpoint to resume from. Leave out --resume to start."
            )
        if not resume and checkpoints_in(self.path):
            raise CheckpointError(
                f"{self.path}: already holds a run. Continue it with --resume, or choose another --run."
            )
        if not resume:
            self._cut_log(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free for another training."""
        self._lock.release()

    def resume(self) -> Checkpoint:
        """Read the last checkpoint that is whole, and delete what the log says of later steps.

        `notes` then says which checkpoints were passed over, and what was wrong with the log.

        Raises:
            CheckpointError: no checkpoint can be read, or it is none of a training.
        """
        found: dict[Path, str] = {}
        for path in checkpoints_in(self.path):
            try:
                saved = read_checkpoint(path)
                self.resumed = path
                break
            except CheckpointError as error:
                found[path] = str(error)
        else:
            raise CheckpointError("; ".join(found.values()))
        self.notes += [f"passed over a checkpoint: {message}" for message in found.values()]
        size = saved.training.get("log_bytes")
        if isinstance(size, int):
            self._cut_log(size)
        return saved

    def log(self, kind: str, record: Mapping[str, Any]) -> None:
        """Append a record to the log, as `append` does."""
        append(self.log_path, kind, record)

    def stamped(self, saved: Checkpoint) -> Checkpoint:
        """Add to a checkpoint how long the log is now; `resume` cuts the log to that."""
        size = self.log_path.stat().st_size if self.log_path.exists() else 0
        return replace(saved, training={**saved.training, "log_bytes": size})

    def write(self, stamped: Checkpoint) -> None:
        """Write a checkpoint, completely or not at all; the last ones before it are kept."""
        older = [_older(self.path, number) for number in range(1, self._keep)]
        write_checkpoint(self.checkpoint_path, stamped, older=older)
        for path in checkpoints_in(self.path)[self._keep :]:  # of a run that kept more
            path.unlink(missing_ok=True)

    def save(self, saved: Checkpoint) -> None:
        """Write the checkpoint of this moment, as `stamped` and `write` do."""
        self.write(self.stamped(saved))

    def finish(self, saved: Checkpoint) -> None:
        """Write the trained model: weights, description and configuration, without the training state."""
        self.keep(self.model_path.name, saved)

    def keep(self, name: str, saved: Checkpoint) -> None:
        """Write the model of a checkpoint, as `finish` does, under another name."""
        kept = ("config", "precision", "step")
        recipe = {key: saved.training[key] for key in kept if key in saved.training}
        model = replace(saved, training=recipe, training_state={})
        write_checkpoint(self.path / name, model)

    def _cut_log(self, size: int) -> None:
        """Cut the log to its first bytes, which a checkpoint knows of; without a log, make an empty one."""
        try:
            with _open_log(self.log_path) as file:
                whole = _end_of_lines(file, size)
                file.truncate(whole)
        except OSError as error:
            raise _cannot_write(self.log_path, error) from None
        if whole < size:
            self.notes.append(
                f"{self.log_path.name} lacks records: it has {whole:,} of the {size:,} bytes that it had "
                f"when the checkpoint was written"
            )


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in the folder of a run, the newest first."""
    numbers = [_OLDER.fullmatch(path.name) for path in folder.glob("checkpoint-*")]
    older = [_older(folder, n) for n in sorted(int(match[1]) for match in numbers if match)]
    return [path for path in (folder / RunFolder.CHECKPOINT, *older) if path.exists()]


def _older(folder: Path, number: int) -> Path:
    """The path of the checkpoint so many times before the last one."""
    return folder / f"checkpoint-{number}.safetensors"


def append(path: Path, kind: str, record: Mapping[str, Any]) -> None:
    """Append a record to a log, one line of JSON; a number that is not finite becomes null.

    Raises CheckpointError if the log cannot be written, or is a link.
    """
    line = json.dumps(finite({"kind": kind, **record}), allow_nan=False) + "\n"
    try:
        with _open_log(path) as file:
            file.seek(0, os.SEEK_END)
            file.write(line.encode())
    except OSError as error:
        raise _cannot_write(path, error) from None


def _open_log(path: Path) -> BinaryIO:
    """Open a log to read and write it, and make it if it does not exist; a link is refused."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b")


def _end_of_lines(file: BinaryIO, size: int) -> int:
    """The end of the last whole line within the first `size` bytes of a file."""
    size = min(size, file.seek(0, os.SEEK_END))
    while size > 0:
        start = max(0, size - _READ)
        file.seek(start)
        if (line_end := file.read(size - start).rfind(b"\n")) >= 0:
            return start + line_end + 1
        size = start
    return 0


def _cannot_write(path: Path, error: OSError) -> CheckpointError:
    cause = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
    return CheckpointError(f"{path}: cannot be written: {cause}. Choose another --run.")

"""A run's folder: one training owns it, its log has each record once, and the last checkpoints are kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphnet.description import parse
from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint
from graphnet.training import RunFolder

RELU = parse({"layers": ["relu"]})


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(RELU, {"a": torch.full((3,), float(step))}, training={"step": step})


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def steps(folder: RunFolder) -> list[int]:
    """The steps in the log; each line must be a whole record."""
    return [json.loads(line)["step"] for line in folder.log_path.read_text().splitlines()]


def test_a_folder_without_a_checkpoint_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        RunFolder(tmp_path / "run", resume=True)


def test_a_folder_with_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    with RunFolder(tmp_path, resume=False) as run:
        run.save(checkpoint(1))
    with pytest.raises(CheckpointError, match="already holds a run"):
        RunFolder(tmp_path, resume=False)
    run.checkpoint_path.rename(tmp_path / "checkpoint-1.safetensors")
    with pytest.raises(CheckpointError, match="already holds a run"):
        RunFolder(tmp_path, resume=False)


def test_a_second_training_is_refused_until_the_first_one_ends(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, resume=False)
    first.log("steps", {"step": 1})
    for resume in (False, True):
        with pytest.raises(CheckpointError, match="another training is running in this folder"):
            RunFolder(tmp_path, resume=resume)
    code = "import sys, pathlib; from graphnet.training import RunFolder; "
    code += "RunFolder(pathlib.Path(sys.argv[1]), resume=False)"
    other = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert "another training is running" in other.stderr
    assert steps(first) == [1]
    first.close()
    RunFolder(tmp_path, resume=False).close()


def test_resuming_deletes_the_records_of_later_steps(tmp_path: Path) -> None:
    with RunFolder(tmp_path, resume=False) as run:
        run.log("steps", {"step": 5, "loss": float("inf")})
        run.save(checkpoint(5))
        run.log("epoch", {"step": 5})  # of the same step, but after the checkpoint
        run.log("steps", {"step": 8})
    with RunFolder(tmp_path, resume=True) as again:
        assert again.resume().training["step"] == 5
        assert again.log_path.read_text() == '{"kind": "steps", "step": 5, "loss": null}\n'
        assert again.notes == []


@pytest.mark.parametrize(
    ("log", "left"),
    [
        (b'{"step": 1}\n{"step": 2}\n[]\n\0\xff\n{"st', b'{"step": 1}\n{"step": 2}\n'),
        (b'{"step": 1}\n{"st', b'{"step": 1}\n'),
        (b'{"st', b""),
        (b"", b""),
        (None, b""),
        (b"[]\n\0\xff\n" + b"x" * 200_000 + b"\n", b"[]\n\0\xff\n"),
    ],
)
def test_a_damaged_log_does_not_keep_a_run_from_being_resumed(
    tmp_path: Path, log: bytes | None, left: bytes
) -> None:
    with RunFolder(tmp_path, resume=False) as run:
        run.log_path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
        run.save(checkpoint(2))
    if log is None:
        run.log_path.unlink()
    else:
        run.log_path.write_bytes(log)
    with RunFolder(tmp_path, resume=True) as again:
        assert again.resume().training["step"] == 2
        assert again.log_path.read_bytes() == left
        short = len(left) < len(b'{"step": 1}\n{"step": 2}\n')
        assert [("lacks records" in note) for note in again.notes] == [True] * short


def test_a_log_that_is_a_link_is_refused_and_its_target_unchanged(tmp_path: Path) -> None:
    other = tmp_path / "mine.txt"
    other.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").symlink_to(other)
    with pytest.raises(CheckpointError, match=r"log.jsonl: cannot be written: it is a link"):
        RunFolder(folder, resume=False)
    assert other.read_text() == "mine"
    RunFolder(tmp_path / "second", resume=False).close()  # the lock of the first was released


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    names = ["checkpoint.safetensors", "checkpoint-1.safetensors", "checkpoint-2.safetensors"]
    with RunFolder(tmp_path, resume=False, keep=3) as run:
        for step in range(1, 6):
            run.save(checkpoint(step))
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("checkpoint*")}
    assert sorted(kept) == sorted(names)
    assert [json.loads(_text(kept[name]))["training"]["step"] for name in names] == [5, 4, 3]
    with RunFolder(tmp_path, resume=True, keep=2) as run:
        run.save(checkpoint(6))
        assert {path.name for path in tmp_path.glob("checkpoint*")} == set(names[:2])


def _text(data: bytes) -> str:
    """The text in a checkpoint's header."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text: str = header["__metadata__"]["graphnet"]
    return text


def test_a_damaged_checkpoint_is_passed_over_and_this_is_said(tmp_path: Path) -> None:
    with RunFolder(tmp_path, resume=False, keep=3) as run:
        for step in (1, 2, 3):
            run.log("steps", {"step": step})
            run.save(checkpoint(step))
    flip(run.checkpoint_path, -1)
    with RunFolder(tmp_path, resume=True) as again:
        assert again.resume().training["step"] == 2
        (note,) = again.notes
        assert note.startswith("passed over a checkpoint: ")
        assert "checkpoint.safetensors: damaged: the tensor 'model/a'" in note
        assert steps(again) == [1, 2]
    run.checkpoint_path.unlink()
    flip(tmp_path / "checkpoint-1.safetensors", 100)
    flip(tmp_path / "checkpoint-2.safetensors", -1)
    with (
        RunFolder(tmp_path, resume=True) as again,
        pytest.raises(CheckpointError, match=r"-1.safetensors: .*; .*-2.safetensors: "),
    ):
        again.resume()


def test_what_killed_processes_have_left_is_deleted(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.safetensors.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_bytes(b"another file")
    with RunFolder(tmp_path, resume=False):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".mine.tmp", "log.jsonl"}


def test_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/run: cannot be written"):
        RunFolder(tmp_path / "file" / "run", resume=False)

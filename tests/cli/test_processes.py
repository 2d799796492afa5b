"""graphnet train in several processes, from the command line: one sentence and one status for all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import pytest

from graphnet.cli.machine import machine
from graphnet.cli.processes import arguments_again
from graphnet.cli.train import train
from graphnet.graph import load_network, network_path
from graphnet.model import read_checkpoint

CONFIG = """
model:
  input: {channels: 1}
  layers:
    - conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
    - relu
    - conv2d: {out_channels: 1, kernel_size: 1}
data: {train: pairs.npz, validation: pairs.npz}
loss: mse
optimizer: {adam: {lr: 0.01}}
epochs: 2
batch_size: 8
metrics: [psnr]
log_every: 2
deterministic: true
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noisy, clean = np.random.default_rng(0).integers(0, 256, (2, 32, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pairs.npz", noisy=noisy, clean=clean)
    (tmp_path / "train.yaml").write_text(CONFIG)
    return tmp_path


def start(folder: Path, *arguments: object, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *launcher, "graphnet", "train", "train.yaml", "--run", "run"]
    command = [*command, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status and the messages; if the command does not end, it is killed."""
    try:
        _, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, errors


def log(folder: Path) -> Iterator[dict[str, object]]:
    path = folder / "run" / "log.jsonl"
    if path.exists():
        for line in path.read_text().splitlines():
            with suppress(ValueError):  # it is being written
                yield json.loads(line)


def workers(process: subprocess.Popen[str], folder: Path) -> list[int]:
    """The processes that a command has started, in their order, as soon as they train."""
    end = time.monotonic() + 60
    while not any(record["kind"] == "epoch" for record in log(folder)):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


@pytest.mark.slow
def test_processes_and_torchrun_train_the_same_model_as_one_process(folder: Path) -> None:
    models, states = [], []
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "4", "-m", "--"]
    for more, by in (((), ()), (("--processes", 2), ()), ((), launcher)):
        status, errors = finish(start(folder, "--set", "shard=optimizer", *more, launcher=by))
        assert status == 0, errors
        assert errors.count("epoch 2/2") == 1  # one of the processes prints
        records = list(log(folder))
        assert [one["kind"] for one in records].count("epoch") == 2
        assert records[0]["processes"] == {(): 1, ("--processes", 2): 2}[more] if not by else 4
        saved = read_checkpoint(folder / "run" / "checkpoint.safetensors")
        models.append((folder / "run" / "model.safetensors").read_bytes())
        states.append({name: tensor.tolist() for name, tensor in saved.training_state.items()})
        for path in (folder / "run").iterdir():
            path.unlink()
    assert models[0] == models[1] == models[2]
    assert states[0] == states[1] == states[2]
    assert len(states[0]) == 2 * 4  # those of Adam for each parameter, which processes divide


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize(
    ("number", "rank", "words"),
    [
        (signal.SIGKILL, 0, "process 0 ended without a word"),
        (signal.SIGKILL, 1, "process 1 ended without a word"),
        (signal.SIGSTOP, 1, "process 1 did not answer for 3 s"),
    ],
)
def test_a_process_that_ends_or_hangs_is_named_and_a_checkpoint_remains(
    folder: Path, number: signal.Signals, rank: int, words: str
) -> None:
    process = start(folder, "--processes", 2, "--epochs", 100_000, "--timeout", 3)
    pids = workers(process, folder)
    os.kill(pids[rank], number)
    status, errors = finish(process)
    assert status == 2
    said = [line for line in errors.splitlines() if not line.startswith(("model: ", "epoch "))]
    assert len(said) == 1, errors
    assert said[0].startswith(f"error: {words}")
    assert said[0].endswith("Continue from the last checkpoint with --resume.")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert read_checkpoint(folder / "run" / "checkpoint.safetensors").training["step"] >= 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_signal_to_one_process_stops_all_with_a_checkpoint(folder: Path) -> None:
    process = start(folder, "--processes", 2, "--epochs", 100_000)
    os.kill(workers(process, folder)[1], signal.SIGTERM)
    status, errors = finish(process)
    assert status == 143, errors
    assert errors.count("continue with --resume") == 1
    step = read_checkpoint(folder / "run" / "checkpoint.safetensors").training["step"]
    assert f"stopped after step {step};" in errors


@pytest.mark.slow
def test_an_error_of_all_processes_is_printed_once(folder: Path) -> None:
    status, errors = finish(start(folder, "--processes", 2, "--set", "batch_size=7"))
    assert status == 2
    assert errors == (
        "error: batch_size is 7, which 2 processes cannot divide into equal parts. Give a multiple of 2.\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it has /dev/full")
def test_a_disk_that_is_full_ends_all_processes(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "log.jsonl").symlink_to("/dev/full")
    status, errors = finish(start(folder, "--processes", 2))
    assert status == 2
    assert "process 0: " in errors
    assert errors.count("error: ") == 1


def test_arguments_are_passed_on_to_the_processes() -> None:
    given = [
        *("a file.yaml", "--set", "batch_size=4", "--set", "loss=l1", "--resume"),
        *("--processes", "2", "--without", "recompute", "--device", "cpu"),
    ]
    context = train.make_context("train", list(given))
    again = arguments_again(context, without="processes")
    same = train.make_context("train", list(again))
    assert same.params == {**context.params, "processes": None}


def test_processes_of_torchrun_cannot_start_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(click.UsageError, match="leave --processes out"):
        train.main(["x.yaml", "--processes", "2"], standalone_mode=False)


@pytest.mark.slow
def test_the_network_between_processes_is_measured(tmp_path: Path) -> None:
    environment = {**os.environ, "GRAPHNET_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "graphnet", "machine", "--network", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["name"] == "2 processes, gloo on cpu"
    assert found["latency_s"] > 0
    kept = load_network(network_path(found["name"], tmp_path))
    assert kept is not None
    assert kept.bandwidth == found["bandwidth"]


def test_processes_belong_to_the_network() -> None:
    with pytest.raises(click.UsageError, match="--processes belongs to --network"):
        machine.main(["--processes", "3"], standalone_mode=False)

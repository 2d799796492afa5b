"""graphnet train on two machines, which are two network namespaces of this one: torchrun's own flags."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from graphnet.model import read_checkpoint
from tests.cli.test_processes import CONFIG, folder, log

__all__ = ["folder"]  # the fixture

NAMES = [f"graphnet-{os.getpid()}-{number}" for number in range(2)]
ADDRESSES = ["10.177.0.1", "10.177.0.2"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("it needs root and the command ip, to make network namespaces")
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ends = ["netns", NAMES[0], "type", "veth", "peer", "name", "wire", "netns", NAMES[1]]
        ip("link", "add", "wire", *ends)
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine cannot make network namespaces: {error.stderr.strip()}")
    else:
        yield NAMES
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def start(machine: str, number: int, folder: Path, run: str, *more: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", machine, sys.executable, "-m", "torch.distributed.run"]
    command += ["--nnodes", "2", "--node-rank", str(number), "--master-addr", ADDRESSES[0]]
    command += ["--nproc-per-node", "2", "-m", "--", "graphnet", "train", "train.yaml"]
    command += ["--run", run, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "wire"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    try:
        return [(one.wait(timeout=180), one.communicate()[1]) for one in processes]
    finally:
        for one in processes:
            one.kill()


@pytest.mark.slow
def test_two_machines_train_the_same_model_as_one_process(
    folder: Path, machines: list[str]
) -> None:
    (folder / "train.yaml").write_text(CONFIG + "shard: optimizer\n")
    alone = [sys.executable, "-m", "graphnet", "train", "train.yaml", "--run", "alone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(alone, cwd=folder, env=environment, check=True, capture_output=True)
    ended = finish([start(name, i, folder, "run") for i, name in enumerate(machines)])
    assert [status for status, _ in ended] == [0, 0], ended
    assert "epoch 2/2" in ended[0][1]
    assert "epoch 2/2" not in ended[1][1]
    assert next(log(folder))["processes"] == 4
    models = [(folder / run / "model.safetensors").read_bytes() for run in ("alone", "run")]
    assert models[0] == models[1]


@pytest.mark.slow
def test_a_cable_that_is_pulled_out_ends_all_and_a_checkpoint_remains(
    folder: Path, machines: list[str]
) -> None:
    more = ["--epochs", "100000", "--timeout", "5"]
    processes = [start(name, i, folder, "run", *more) for i, name in enumerate(machines)]
    end = time.monotonic() + 60
    while not any(record["kind"] == "epoch" for record in log(folder)):
        assert time.monotonic() < end
        time.sleep(0.1)
    ip("-n", machines[1], "link", "set", "wire", "down")
    began = time.monotonic()
    ended = finish(processes)
    assert time.monotonic() - began < 60
    assert all(status for status, _ in ended)
    assert "error: processes 2 and 3 did not answer for 5 s; they hang, " in ended[0][1]
    assert read_checkpoint(folder / "run" / "checkpoint.safetensors").training["step"] >= 4

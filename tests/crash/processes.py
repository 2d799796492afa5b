"""One of several processes is killed at random moments, and torchrun starts all again, until the end.

`python -m tests.crash.processes`. The training must end with the bits and the records of one in one process
that nobody kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.crash.training import differences, make_pairs

_CONV = {"conv2d": {"out_channels": 2, "kernel_size": 3, "padding": 1}}
_FIELDS: dict[str, Any] = {
    "model": {
        "input": {"channels": 1},
        "layers": [
            _CONV,
            {"dropout": {"p": 0.2}},
            {"conv2d": {"out_channels": 1, "kernel_size": 1}},
        ],
    },
    "data": {"train": "pairs.npz"},
    "loss": "mse",
    "optimizer": {"adam": {"lr": 0.01}},
    "schedule": "cosine",
    "batch_size": 4,
    "accumulate": 2,
    "ema": 0.9,
    "log_every": 50,
    "device": "cpu",
    "deterministic": True,
    "shard": "optimizer",
    "checkpoints": {"every_s": 0.2},
}
_STEPS_OF_A_LIFE = 300  # about as many as fit between two kills
_LIFE_S = 1.5


def attack(place: Path, kills: int) -> dict[str, Any]:
    """Kill processes at random moments; return the number of kills, the steps, and each fault as a text."""
    make_pairs(place / "pairs.npz")  # 8 pairs: an epoch has 2 steps
    steps = max(1, kills) * _STEPS_OF_A_LIFE
    (place / "train.yaml").write_text(json.dumps({**_FIELDS, "epochs": steps // 2}))
    command = [sys.executable, "-m", "graphnet", "train", "train.yaml", "--run"]
    subprocess.run([*command, "whole"], cwd=place, check=True, capture_output=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "--max-restarts", str(kills + 1), "-m", "--"]
    process = subprocess.Popen(
        [*torchrun, *command[2:], "killed"],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    done = _kill(process, place / "killed", kills)
    status = process.wait(timeout=600)
    wrong = [f"the training ended with status {status}"] if status else []
    wrong += [] if status else differences(place / "killed", place / "whole")
    return {"kills": done, "steps": steps, "wrong": wrong}


def _kill(process: subprocess.Popen[bytes], folder: Path, kills: int) -> int:
    """Kill a random process so often, each time a random while after the training has gone on."""
    draw = random.Random(0)
    done = 0
    seen: set[int] = set()
    for _ in range(kills):
        if not (workers := _new_workers(process, seen, folder)):
            break
        seen |= {*workers}
        time.sleep(draw.uniform(0.0, _LIFE_S))
        os.kill(draw.choice(workers), signal.SIGKILL)
        done += 1
    return done


def _new_workers(process: subprocess.Popen[bytes], seen: set[int], folder: Path) -> list[int]:
    """The processes that have been started since, when they train; none if the training has ended."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    log = folder / "log.jsonl"
    size = log.stat().st_size if log.exists() else 0
    while process.poll() is None:
        workers = [int(pid) for pid in children.read_text().split()]
        if len(workers) == 2 and not seen & {*workers} and log.exists():
            if log.stat().st_size > size:
                return workers
            size = min(size, log.stat().st_size)  # it was cut to the last checkpoint
        time.sleep(0.02)
    return []


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(attack(Path(place), given.kills)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Trainings are killed at random moments and resumed until they end: `python -m tests.crash.kills`.

Each must end with the bits and the records of the same training without a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphnet.sdk import default_registry
from tests.crash.training import differences, make_pairs, make_photo, train

_CONV = {"conv2d": {"out_channels": 2, "kernel_size": 3, "padding": 1}}
_LAST = {"conv2d": {"out_channels": 1, "kernel_size": 1}}
_MODEL = {"input": {"channels": 1}, "layers": [_CONV, "relu", _LAST]}
_DROPOUT = {"input": {"channels": 1}, "layers": [_CONV, {"dropout": {"p": 0.5}}, _LAST]}
_PATCHES = {
    "path": "photos",
    "size": 4,
    "per_epoch": 8,
    "noise": {"gaussian": {"std": 25}},
    "augment": True,
}
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {"model": _MODEL, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}},
    "adam, ema": {"model": _MODEL, "ema": 0.9},
    "muon, clip": {"model": _MODEL, "optimizer": {"muon": {"lr": 0.01}}, "clip_grad_norm": 0.1},
    "accumulate": {"model": _MODEL, "accumulate": 2, "batch_size": 2},
    "dropout": {"model": _DROPOUT},
    "stream": {"model": _MODEL, "data": {"train": {"patches": _PATCHES}}},
    "reference": {"model": _MODEL, "executor": "reference"},
    "inductor": {"model": _MODEL, "executor": "inductor"},
}
_LENGTH = {"epochs": 60, "log_every": 3}


def attack(place: Path, kills: int, ways: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Kill trainings at random moments; return what was tried and what went wrong."""
    pairs = place / "pairs.npz"
    make_pairs(pairs)
    os.chdir(place)
    make_photo(Path("photos"))
    draw = random.Random(0)
    wrong: list[str] = []
    done = finished = 0
    cases = [(name, in_order) for name in ways for in_order in (True, False)]
    whole: dict[str, tuple[Path, float]] = {}
    for name in ways:
        folder, started = place / f"{name}-whole", time.monotonic()
        if status := _run(folder, pairs, ways[name], in_order=True):
            raise SystemExit(f"{name}: the training without a kill ended with status {status}")
        whole[name] = folder, time.monotonic() - started
    each = -(-kills // len(cases))  # kills of a case, in one training or more
    for name, in_order in cases:
        killed = 0
        while killed < each:
            folder, status = place / f"{name}-{finished}", -1
            while status:
                after = draw.uniform(0.0, 0.6) * whole[name][1] if killed < each else None
                number = draw.choice((signal.SIGKILL, signal.SIGTERM))
                status = _run(
                    folder, pairs, ways[name], in_order=in_order, after=after, number=number
                )
                killed += status < 0
                if status > 0:
                    wrong.append(f"{name}: cannot be resumed (status {status})")
                    break
            else:
                wrong += [f"{name}: {one}" for one in differences(folder, whole[name][0])]
            finished += 1
        done += killed
    return {"kills": done, "trainings": finished, "wrong": wrong}


def _run(
    folder: Path,
    pairs: Path,
    fields: Mapping[str, Any],
    *,
    in_order: bool,
    after: float | None = None,
    number: int = 0,
) -> int:
    """Train in a fork of this process; returns its exit status, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            train(folder, pairs, fields={**_LENGTH, **fields}, in_order=in_order)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if after is not None:
        end = time.monotonic() + after
        while time.monotonic() < end:
            if os.waitpid(child, os.WNOHANG)[0]:
                return 0
            time.sleep(0.001)
        os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--ways", help="some of the trainings, separated by semicolons")
    given = parser.parse_args()
    names = given.ways.split(";") if given.ways else [*WAYS]
    default_registry()  # once, for all children
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(attack(Path(place), given.kills, {name: WAYS[name] for name in names})))
    return 0


if __name__ == "__main__":
    sys.exit(main())

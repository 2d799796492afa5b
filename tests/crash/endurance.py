"""Long use of one process, and several processes in one folder: `python -m tests.crash.endurance NAME`.

`steps` and `predictions` measure the memory of the process (its resident set) after a warm-up and at the end.
`threads` compares predictions that many threads make with one model to those of one thread. `folder` starts
several trainings with one folder at the same time.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml

import graphnet as gn
from graphnet.sdk import default_registry
from graphnet.training import RunFolder, Saving, Trainer
from tests.crash.training import job_of, make_pairs

_CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
_NETWORK = {
    "input": {"channels": 1},
    "layers": [_CONV, "relu", {"conv2d": {**_CONV["conv2d"], "out_channels": 1}}],
}
_PAGE = 4096
_THREADS = 16
_PROCESSES = 4


def resident() -> int:
    """The bytes of memory that this process takes now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * _PAGE


def steps(number: int) -> dict[str, Any]:
    """Train this many steps, with a log and checkpoints."""
    with tempfile.TemporaryDirectory() as place:
        pairs, folder = Path(place) / "pairs.npz", Path(place) / "run"
        make_pairs(pairs)
        fields = {"model": _NETWORK, "epochs": number // 2, "checkpoints": {"every_s": 1.0}}
        warm, done = 0, 0
        with RunFolder(folder, resume=False) as run:
            log = default_registry().make("reporters", "log")
            trainer = Trainer(job_of(pairs, fields), folder=run, reporters=[log])
            with Saving(trainer, run) as saving:
                for record in trainer.run():
                    saving.record(record)
                    done = getattr(record, "step", done)
                    if not warm and done >= number // 10:
                        warm = resident()
    return _growth(f"{done:,} steps", warm)


def predictions(number: int, sizes: int = 500) -> dict[str, Any]:
    """Predict images of many sizes."""
    model = gn.Model(_NETWORK)
    draw = random.Random(0)
    warm = 0
    for done in range(number):
        if done == number // 5:
            warm = resident()
        height, width = divmod(draw.randrange(sizes), 25)
        model.predict(torch.zeros(1, 1, height + 1, width + 1), device="cpu")
    return _growth(f"{number:,} predictions of {sizes} sizes", warm)


def _growth(what: str, warm: int) -> dict[str, Any]:
    growth = resident() / warm - 1
    wrong = [f"{what}: the memory grew by {growth:.2%}"] if growth >= 0.01 else []
    result = f"the memory grew by {growth:.2%} after a warm-up"
    return {"what": what, "result": result, "wrong": wrong}


def threads(number: int, sizes: int = 100) -> dict[str, Any]:
    """Predict images of many sizes in many threads with one model."""
    model = gn.Model(_NETWORK)
    program = model.compile((1, 1, 4, 4), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
    model.set_weights(program.weights)  # else each prediction would draw weights
    shapes = [(1, 1, 3 + size // 10, 3 + size % 10) for size in range(sizes)]
    images = [torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes]
    expected = [model.predict(image, device="cpu") for image in images]

    def work(seed: int) -> int:
        draw, wrong = random.Random(seed), 0
        for _ in range(number // _THREADS):
            one = draw.randrange(sizes)
            wrong += not torch.equal(model.predict(images[one], device="cpu"), expected[one])
        return wrong

    with ThreadPoolExecutor(_THREADS) as pool:
        count = sum(pool.map(work, range(_THREADS)))
    what = f"{number:,} predictions of {sizes} sizes in {_THREADS} threads"
    wrong = [f"{what}: {count} are wrong"] if count else []
    return {"what": what, "result": "each as in one thread", "wrong": wrong}


def folder(number: int) -> dict[str, Any]:
    """Start several trainings with one folder at the same time, this many times."""
    wrong = []
    for turn in range(number):
        with tempfile.TemporaryDirectory() as place:
            wrong += [f"turn {turn}: {one}" for one in _at_once(Path(place))]
    what = f"{_PROCESSES} trainings with one folder at the same time, {number} times"
    return {"what": what, "result": "one trains, the others are refused", "wrong": wrong}


def _at_once(place: Path) -> list[str]:
    make_pairs(place / "pairs.npz")
    training = {
        "model": _NETWORK,
        "data": {"train": "pairs.npz"},
        "loss": "mse",
        "optimizer": {"sgd": {"lr": 0.1}},
        "epochs": 2000,
        "batch_size": 4,
        "device": "cpu",
    }
    (place / "training.yaml").write_text(yaml.safe_dump(training), encoding="utf-8")
    command = [sys.executable, "-m", "graphnet", "train", "training.yaml", "--run", "run"]
    running = [
        subprocess.Popen(
            command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(_PROCESSES)
    ]
    messages = [process.communicate()[1] for process in running]
    statuses = sorted(process.returncode for process in running)
    found = []
    if statuses != [0] + [2] * (_PROCESSES - 1):
        found.append(f"the exit statuses are {statuses}")
    refused = [text for text, one in zip(messages, running, strict=True) if one.returncode]
    found += [f"refused by {text!r}" for text in refused if not text.startswith("error: run: ")]
    log = [json.loads(line) for line in (place / "run" / "log.jsonl").read_text().splitlines()]
    epochs = [record["epoch"] for record in log if record["kind"] == "epoch"]
    if epochs != [*range(1, 2001)]:
        found.append(f"the log has {len(epochs)} epochs")
    return found


TRIALS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "steps": (steps, 20_000),
    "predictions": (predictions, 10_000),
    "threads": (threads, 20_000),
    "folder": (folder, 5),
}
"""Each trial, and its size in `make torture`."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[*TRIALS])
    parser.add_argument("--number", type=int)
    given = parser.parse_args()
    trial, size = TRIALS[given.name]
    print(json.dumps(trial(size if given.number is None else given.number)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

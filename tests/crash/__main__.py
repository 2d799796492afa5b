"""Every change of a file in a small training fails once: `python -m tests.crash`, in tests.crash.faults.

For each change and fault, a training runs in a child until the fault ends it. The next one resumes it, or
starts it again if there is no checkpoint, and ends. Then the weights, the optimizer's state and the log must
be those of a training without a fault, and the folder must have no other files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphnet.model import read_checkpoint
from graphnet.sdk import default_registry
from graphnet.training import RunFolder, Saving, Trainer
from graphnet.training.config import make_job
from tests.crash.faults import FAULTS, Report, in_child

FILES = {
    ".lock",
    "log.jsonl",
    "checkpoint.safetensors",
    "checkpoint-1.safetensors",
    "model.safetensors",
}
TIMES = {"steps_per_s", "elapsed_s", "waiting"}


def train(folder: Path, pairs: Path, report: Report) -> None:
    """Start or resume the training in a folder, until it ends; report the step of each checkpoint."""
    registry = default_registry()
    job = make_job(
        {
            "model": {
                "input": {"channels": 1},
                "layers": [{"conv2d": {"out_channels": 1, "kernel_size": 1}}],
            },
            "data": {"train": str(pairs)},
            "loss": "mse",
            "optimizer": {"adam": {"lr": 0.01}},
            "schedule": "cosine",
            "epochs": 3,
            "batch_size": 4,
            "log_every": 2,
            "device": "cpu",
            "checkpoints": {"every_s": 1e-9},  # after each record
        },
        registry=registry,
    )
    resume = any(folder.glob("checkpoint*.safetensors"))
    with RunFolder(folder, resume=resume) as run:
        saved = run.resume() if resume else None
        log = registry.make("reporters", "log")
        trainer = Trainer(job, resume=saved, folder=run, reporters=[log])
        with Saving(trainer, run) as saving:
            for record in trainer.run():
                saving.record(record)
                saving.wait()  # so that changes of files come in the same order each time
                report(str(getattr(record, "step", 0)))
        run.finish(trainer.checkpoint())


def records(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder's log of what was trained, without times."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in found
        if record["kind"] in ("steps", "epoch")
    ]


def differences(folder: Path, expected: Path) -> list[str]:
    """Say how the training in a folder differs from another one."""
    found = []
    mine, theirs = (read_checkpoint(one / "checkpoint.safetensors") for one in (folder, expected))
    for what, tensors, others in (
        ("weight", mine.weights, theirs.weights),
        ("state", mine.training_state, theirs.training_state),
    ):
        found += [
            f"{what} {n} differs" for n, t in others.items() if not torch.equal(tensors[n], t)
        ]
    if records(folder) != records(expected):
        found.append(f"the log differs: {records(folder)}")
    if more := {path.name for path in folder.iterdir()} - FILES:
        found.append(f"other files: {sorted(more)}")
    return found


def attack(place: Path, every: int) -> dict[str, Any]:
    """Let every such change of a file fail; return what was tried and what went wrong."""
    pairs = place / "pairs.npz"
    draw = np.random.default_rng(0)
    clean = draw.integers(0, 256, (8, 1, 4, 4), dtype=np.uint8)
    np.savez(pairs, noisy=clean, clean=clean)
    whole = place / "whole"
    in_child(lambda report: train(place / "warm", pairs, report), place / "none")
    ended = in_child(lambda report: train(whole, pairs, report), whole)
    if ended.error:
        raise SystemExit(f"the training without a fault failed: {ended.error}")
    wrong: list[str] = []
    trials = 0
    for name, fault in FAULTS.items():
        for number in range(0, ended.changes, every):
            trials += 1
            folder, title = place / f"{name}-{number}", f"{name} at change {number}"
            first = in_child(
                lambda report, folder=folder: train(folder, pairs, report),  # type: ignore[misc]
                folder,
                number=number,
                fault=fault,
            )
            if name == "SIGKILL" and not first.killed:
                wrong.append(f"{title}: was not killed: {first.error}")
            if first.error and "GraphnetError" not in first.error:
                wrong.append(f"{title}: {first.error}")
            if first.error or first.killed:
                second = in_child(
                    lambda report, folder=folder: train(folder, pairs, report),  # type: ignore[misc]
                    folder,
                )
                if second.error:
                    wrong.append(f"{title}: cannot be resumed: {second.error}")
                    continue
                done, begun = ([int(step) for step in one.output] for one in (first, second))
                if done and begun and min(begun) < max(done):
                    wrong.append(f"{title}: resumed at {min(begun)}, saved was {max(done)}")
            wrong += [f"{title}: {one}" for one in differences(folder, whole)]
    return {"changes": ended.changes, "trials": trials, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="only every such change")
    given = parser.parse_args()
    default_registry()  # once, for all children
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(attack(Path(place), given.every)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

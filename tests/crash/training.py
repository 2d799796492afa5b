"""A small training that tests kill and resume, and what must be the same afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from graphnet.model import read_checkpoint
from graphnet.sdk import default_registry
from graphnet.training import RunFolder, Saving, Trainer
from graphnet.training.config import Job, make_job

FILES = {
    ".lock",
    "log.jsonl",
    "checkpoint.safetensors",
    "checkpoint-1.safetensors",
    "model.safetensors",
}
TIMES = {"steps_per_s", "elapsed_s", "waiting"}


def make_pairs(path: Path) -> None:
    """Write a file of 8 pairs of 4x4 pixels."""
    draw = np.random.default_rng(0)
    noisy, clean = draw.integers(0, 256, (2, 8, 1, 4, 4), dtype=np.uint8)
    np.savez(path, noisy=noisy, clean=clean)


def make_photo(folder: Path) -> None:
    """Write a grey photo of 16x16 pixels into a new folder."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")


def job_of(pairs: Path, fields: Mapping[str, Any]) -> Job:
    """A small training on a file of pairs.

    Args:
        fields: fields of the training file that differ from the usual ones.
    """
    return make_job(
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
            "checkpoints": {"every_s": 1e-9},
            **fields,
        },
        registry=default_registry(),
    )


def train(
    folder: Path,
    pairs: Path,
    *,
    fields: Mapping[str, Any],
    report: Callable[[str], None] = lambda line: None,
    in_order: bool = True,
) -> None:
    """Start or resume the training in a folder, until it ends; a checkpoint is written after each record.

    Args:
        folder: the folder of the run.
        pairs: the data.
        fields: fields of the training file that differ from the usual ones.
        report: gets the step of each checkpoint that is written.
        in_order: whether steps wait for the thread that writes checkpoints, so that changes of files come in
            the same order in each training.
    """
    job = job_of(pairs, fields)
    resume = any(folder.glob("checkpoint*.safetensors"))
    with RunFolder(folder, resume=resume) as run:
        saved = run.resume() if resume else None
        log = default_registry().make("reporters", "log")
        trainer = Trainer(job, resume=saved, folder=run, reporters=[log])
        with Saving(trainer, run) as saving:
            for record in trainer.run():
                saving.record(record)
                if in_order:
                    saving.wait()
                    report(str(getattr(record, "step", 0)))
        run.finish(trainer.checkpoint())


def records(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder's log of what was trained, without times."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in record.items() if name not in TIMES}
        for record in map(json.loads, lines)
        if record["kind"] in ("steps", "epoch")
    ]


def differences(folder: Path, expected: Path) -> list[str]:
    """Say how the training in a folder differs from another one."""
    mine, theirs = (read_checkpoint(one / "checkpoint.safetensors") for one in (folder, expected))
    found = [
        f"{name} differs"
        for tensors, others in (
            (mine.weights, theirs.weights),
            (mine.training_state, theirs.training_state),
        )
        for name, tensor in others.items()
        if not torch.equal(tensors[name], tensor)
    ]
    if records(folder) != records(expected):
        found.append(f"the log differs: {records(folder)}")
    if more := {path.name for path in folder.iterdir()} - FILES:
        found.append(f"other files: {sorted(more)}")
    return found

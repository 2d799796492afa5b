"""Trainers in several processes: the same training as in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import graphnet as gn
from graphnet.errors import InputError, TrainingError
from graphnet.model import SINGLE, Joined, read_checkpoint, write_checkpoint
from graphnet.sdk import Epoch, Pairs, Record, Steps, Stopped, default_registry
from graphnet.training import Trainer
from graphnet.training.batches import BatchSource, MemoryBatches, PrefetchedBatches
from graphnet.training.config import make_job
from tests.support.processes import in_processes

CONV = {"kernel_size": 3, "padding": 1}
MODEL = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 8, **CONV}},
        "relu",
        {"dropout": {"p": 0.2}},
        {"conv2d": {"out_channels": 3, **CONV}},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    noisy, clean = draw.integers(0, 256, (2, 150, 3, 8, 8), dtype=np.uint8)
    np.savez(path / "train.npz", noisy=noisy[:48], clean=clean[:48])
    np.savez(path / "held.npz", noisy=noisy, clean=clean)  # more than one batch of 128
    (path / "photos").mkdir()
    for number in range(3):
        pixels = draw.integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / "photos" / f"{number}.png")
    return path


def trainer_of(folder: Path, processes: Joined, resume: Path | None, **fields: Any) -> Trainer:
    given = {
        "model": MODEL,
        "data": {"train": str(folder / "train.npz"), "validation": str(folder / "held.npz")},
        "loss": "mse",
        "optimizer": {"adam": {"lr": 0.01}},
        "schedule": "cosine",
        "epochs": 2,
        "batch_size": 8,
        "metrics": ["psnr"],
        "log_every": 2,
        "device": "cpu",
        **fields,
    }
    job = make_job(given, registry=default_registry())
    saved = None if resume is None else read_checkpoint(resume)
    return Trainer(job, resume=saved, processes=processes)


def numbers(records: list[Record]) -> list[float]:
    found: list[float] = []
    for record in records:
        match record:
            case Steps():
                found += [record.step, record.loss, record.lr, *record.reported.values()]
            case Epoch():
                found += [record.epoch, record.loss, *record.metrics.values()]
    return found


def slots(trainer: Trainer) -> dict[str, Tensor]:
    return {**trainer.program.model_weights, **trainer.program.training_state}


def trained(folder: Path, fields: dict[str, Any]) -> dict[str, Tensor]:
    """What a training has recorded and changed."""
    trainer = trainer_of(folder, gn.join_processes(), None, **fields)
    found = numbers(list(trainer.run()))
    return {**slots(trainer), "numbers": torch.tensor(found, dtype=torch.float64)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


STEPS = {"deterministic": True, "accumulate": 3, "clip_grad_norm": 0.1, "ema": 0.9}
DIVIDED = {**STEPS, "shard": "optimizer"}
PLAIN = {
    "model": {"input": {"channels": 3}, "layers": [{"conv2d": {"out_channels": 3, **CONV}}]},
    "precision": "float64",
}


def stream_of(folder: Path) -> dict[str, Any]:
    patches = {
        "path": str(folder / "photos"),
        "size": 8,
        "per_epoch": 24,
        "noise": {"gaussian": {"std": 25}},
    }
    return {
        "data": {"train": {"patches": patches}},
        "metrics": [],
        "report": ["gradient_norm"],
        "deterministic": True,
    }


def stopped(folder: Path, fields: dict[str, Any]) -> list[int]:
    """Train until the last process is told to stop, and write a checkpoint."""
    joined = gn.join_processes()
    trainer = trainer_of(folder, joined, None, **fields)
    last = joined.rank == joined.count - 1
    records = list(trainer.run(lambda: last and trainer.program.steps_done >= 2))
    assert isinstance(records[-1], Stopped)
    saved = trainer.checkpoint()
    if joined.rank == 0:
        write_checkpoint(_stopped(folder, joined.count, fields), saved)
    return [trainer.program.steps_done]


def _stopped(folder: Path, count: int, fields: dict[str, Any]) -> Path:
    return folder / f"stopped-{count}-{fields.get('shard')}.safetensors"


def resumed(folder: Path, count: int, fields: dict[str, Any]) -> dict[str, Tensor]:
    """Go on where `stopped` has stopped so many processes."""
    path = _stopped(folder, count, fields)
    trainer = trainer_of(folder, gn.join_processes(), path, **fields)
    list(trainer.run())
    return slots(trainer)


def patient(folder: Path) -> list[str]:
    """Why a training has stopped, and in which epoch."""
    reporters = [{"early_stopping": {"patience": 1, "least": 10.0}}]
    trainer = trainer_of(folder, gn.join_processes(), None, epochs=9, reporters=reporters)
    last = list(trainer.run())[-1]
    assert isinstance(last, Stopped)
    return [last.reason, str(last.epoch)]


def spoiled(folder: Path, fields: dict[str, Any]) -> list[str]:
    """The error of a training in which only the second process reads a sample that is not finite."""
    joined = gn.join_processes()
    trainer = trainer_of(folder, joined, None, **fields)
    assert isinstance(trainer.feed, MemoryBatches)
    data = trainer.feed.tensors[0]
    data.tensor = data.tensor.float() / 255
    _, mine = trainer.feed.samples(1)  # the second step's
    if joined.rank == 1:
        data.tensor[mine[2]] = torch.inf
    try:
        list(trainer.run())
    except TrainingError as error:
        return [str(error), str(int(mine[2]))]
    return ["no error", ""]


def refused(folder: Path) -> list[str]:
    """The error of a training of which one process has other data."""
    joined = gn.join_processes()
    held = str(folder / "held.npz")
    other = {"data": {"train": held, "validation": held}} if joined.rank == 1 else {}
    try:
        trainer_of(folder, joined, None, **other)
    except InputError as error:
        return [str(error)]
    return ["no error"]


SPOILED: dict[str, dict[str, Any]] = {
    "plain": {},
    "deterministic": {"deterministic": True},
    "accumulate": {"accumulate": 2},
}


def in_two(folder: Path) -> dict[str, Any]:
    """All that these tests run in two processes; to start them takes seconds."""
    return {
        "steps": trained(folder, STEPS),
        "stream": trained(folder, stream_of(folder)),
        "plain": trained(folder, PLAIN),
        "divided": trained(folder, DIVIDED),
        "stopped": stopped(folder, STEPS),
        "stopped divided": stopped(folder, DIVIDED),
        "patient": patient(folder),
        "refused": refused(folder),
        **{f"spoiled {name}": spoiled(folder, fields) for name, fields in SPOILED.items()},
    }


def in_four(folder: Path) -> dict[str, Any]:
    return {
        "steps": trained(folder, STEPS),
        "stream": trained(folder, stream_of(folder)),
        "divided": trained(folder, DIVIDED),
        "resumed": resumed(folder, 2, STEPS),
        "resumed divided": resumed(folder, 2, DIVIDED),
    }


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return in_processes(2, in_two, folder)


@pytest.fixture(scope="module")
def four(folder: Path, two: object) -> list[dict[str, Any]]:
    return in_processes(4, in_four, folder)


@pytest.mark.parametrize("name", ["steps", "stream", "divided"])
def test_trainings_in_1_2_and_4_processes_have_equal_bits(
    folder: Path, two: list[dict[str, Any]], four: list[dict[str, Any]], name: str
) -> None:
    """Their weights, averages, optimizer states, logged losses, gradient norms and metrics."""
    fields = {"steps": STEPS, "stream": stream_of(folder), "divided": DIVIDED}
    alone = trained(folder, fields[name])
    assert len(alone["numbers"]) > 10
    for every in (two, four):
        for rank, found in enumerate(every):
            expected = alone
            if name == "divided" and rank:  # the first process has the states
                expected = {n: t for n, t in alone.items() if "exp_avg" not in n}
            assert_same(found[name], expected)


def test_without_deterministic_trainings_are_equal_to_rounding(
    folder: Path, two: list[dict[str, Any]]
) -> None:
    alone = trained(folder, PLAIN)
    for found in two:
        for name, tensor in alone.items():
            torch.testing.assert_close(found["plain"][name], tensor, rtol=1e-10, atol=1e-13)


def test_processes_stop_together_and_another_number_of_them_goes_on(
    folder: Path, two: list[dict[str, Any]], four: list[dict[str, Any]]
) -> None:
    (first,), (second,) = (found["stopped"] for found in two)
    assert first == second < 12
    assert first % 3 == 0  # after an update
    alone = trained(folder, STEPS)
    del alone["numbers"]
    assert_same(resumed(folder, 2, STEPS), alone)
    for found in four:
        assert_same(found["resumed"], alone)


def test_divided_states_go_on_in_another_number_of_processes(
    folder: Path, two: list[dict[str, Any]], four: list[dict[str, Any]]
) -> None:
    assert two[0]["stopped divided"][0] < 12
    alone = trained(folder, DIVIDED)
    del alone["numbers"]
    assert any("exp_avg" in name for name in alone)
    assert_same(resumed(folder, 2, DIVIDED), alone)
    assert_same(four[0]["resumed divided"], alone)


def test_a_reporter_of_the_first_process_stops_all(two: list[dict[str, Any]]) -> None:
    first, second = (found["patient"] for found in two)
    assert first == second
    assert "early_stopping: loss has not become better for 1 epochs" in first[0]
    assert first[1] == "2"


@pytest.mark.parametrize("name", SPOILED)
def test_a_loss_that_is_not_finite_names_the_process_and_the_sample(
    two: list[dict[str, Any]], name: str
) -> None:
    (message, _), (same, sample) = (found[f"spoiled {name}"] for found in two)
    assert message == same
    assert f"In step 2, process 1, the input 'input' of sample {sample} " in message


def test_other_data_in_one_process_is_refused(two: list[dict[str, Any]]) -> None:
    first, second = (found["refused"] for found in two)
    assert first == second
    assert first[0].startswith("process 1 has other data than process 0")


def test_a_batch_that_processes_cannot_share_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 8, which 3 processes cannot divide"):
        trainer_of(folder, Joined(0, 3), None)


def plan_of(batch: int) -> gn.Plan:
    return gn.Model(MODEL).plan((batch, 3, 8, 8), loss="mse", device="cpu")


def batch_sources(folder: Path, kind: str, processes: Joined) -> BatchSource:
    plan = plan_of(8 // processes.count)
    if kind == "pairs":
        images = torch.arange(20.0)[:, None, None, None].expand(20, 3, 8, 8).contiguous()
        return MemoryBatches(Pairs(images, images), plan, seed=5, processes=processes)
    stream = default_registry().dataset(stream_of(folder)["data"]["train"]).load()
    assert isinstance(stream, gn.sdk.Stream)
    return PrefetchedBatches(
        stream, plan, seed=5, steps=6, predict=lambda x: x, processes=processes
    )


@pytest.mark.parametrize("kind", ["pairs", "stream"])
def test_the_parts_of_all_processes_are_the_batch_of_one(folder: Path, kind: str) -> None:
    alone = batch_sources(folder, kind, SINGLE)
    parts = [batch_sources(folder, kind, Joined(rank, 4)) for rank in range(4)]
    for step in range(4):  # into the second epoch
        whole = alone.made(*alone.given(step))
        made = [part.made(*part.given(step)) for part in parts]
        for one, cut in zip(whole, zip(*made, strict=True), strict=True):
            assert torch.equal(torch.cat(cut), one)

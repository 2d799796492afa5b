"""Reporters get every record, can stop a training, and go on in a resumed one as if nothing had happened."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from graphnet.errors import DescriptionError, TrainingError
from graphnet.model import Model, read_checkpoint
from graphnet.sdk import (
    Epoch,
    Record,
    Register,
    Registry,
    Report,
    Reporter,
    Running,
    Steps,
    Stopped,
    hookimpl,
    load_registry,
)
from graphnet.training import RunFolder, Trainer
from graphnet.training.reporters import BestCheckpoint, EarlyStopping
from tests.training.test_trainer import Data, job


class Kept(Reporter):
    """Keeps the records in a list; stops at a step."""

    stop_at: int = -1

    def start(self, running: Running) -> Report:
        STARTED.append(running)
        return KeptReport(self.stop_at)


class KeptReport(Report):
    def __init__(self, stop_at: int) -> None:
        self.stop_at = stop_at
        self.seen: list[Record] = []
        OPEN.append(self)

    def record(self, record: Record) -> str | None:
        self.seen.append(record)
        stops = isinstance(record, Steps) and record.step == self.stop_at
        return "it is enough" if stops else None

    def state(self) -> dict[str, Any]:
        return {"seen": len(self.seen)}

    def close(self) -> None:
        OPEN.remove(self)


class Fails(Reporter):
    def start(self, running: Running) -> Report:
        return FailsReport()


class Holds(Reporter):
    def start(self, running: Running) -> Report:
        return HoldsReport()


class HoldsReport(Report):
    def state(self) -> dict[str, Any]:
        return {"best": torch.zeros(1)}  # which no checkpoint holds


class FailsReport(Report):
    def record(self, record: Record) -> None:
        raise KeyError("disk")


STARTED: list[Running] = []
OPEN: list[KeptReport] = []


class Reporting(Data):
    @hookimpl
    def graphnet_reporters(self, register: Register) -> None:
        register("test/kept", Kept)
        register("test/fails", Fails)
        register("test/holds", Holds)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Reporting()], entry_points=False)


def epoch(number: int, loss: float, **metrics: float) -> Epoch:
    return Epoch(number, number * 10, loss, metrics, 1.0)


def answers(reporter: Reporter, records: list[Epoch], **running: Any) -> list[str | None]:
    report = reporter.start(Running("seed", **running))
    return [report.record(record) for record in records]


def test_a_reporter_gets_what_is_yielded_and_is_closed(registry: Registry) -> None:
    trainer = Trainer(job(registry, reporters=["test/kept"]))
    found: list[Record] = []
    for record in trainer.run():
        found.append(record)
        assert OPEN[0].seen == found
    assert OPEN == []
    assert STARTED[-1].higher_is_better == {"test/error": False, "loss": False}
    assert (STARTED[-1].epochs, STARTED[-1].steps_per_epoch) == (2, 5)


def test_a_reporter_stops_a_training_between_two_steps(registry: Registry) -> None:
    trainer = Trainer(job(registry, reporters=[{"test/kept": {"stop_at": 8}}]))
    (*_, last) = trainer.run()
    assert last == Stopped(2, 8, "test/kept: it is enough")
    assert trainer.program.steps_done == 8


def test_log_has_each_kind_of_record_and_why_a_reporter_stopped_the_training(
    registry: Registry, tmp_path: Path
) -> None:
    stopping = job(registry, reporters=["log", {"test/kept": {"stop_at": 8}}])
    yielded = list(Trainer(stopping, folder=RunFolder(tmp_path / "run", resume=False)).run())
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    start, *logged = map(json.loads, lines)
    assert {"loss", "differentiate", "update"} <= set(start["passes"])
    assert "clip" not in start["passes"]
    assert len(logged) == len(yielded)
    assert logged[-1] == {
        "kind": "stopped", "epoch": 2, "step": 8, "reason": "test/kept: it is enough",
    }  # fmt: skip


def test_early_stopping_waits_for_patience_epochs_without_an_improvement() -> None:
    losses = [5.0, 4.0, math.nan, 4.0, 3.9, 4.5, 4.5]
    records = [epoch(i + 1, loss) for i, loss in enumerate(losses)]
    found = answers(EarlyStopping(patience=2), records)
    assert [bool(one) for one in found] == [False, False, False, True, False, False, True]
    assert found[-1] == "loss has not become better for 2 epochs; the best is 3.9, of epoch 5"
    least = answers(EarlyStopping(patience=3, least=0.5), records)
    assert [bool(one) for one in least] == [False] * 4 + [True] * 3


def test_a_metric_of_which_more_is_better_improves_upwards() -> None:
    records = [epoch(i + 1, 1.0, psnr=value) for i, value in enumerate([20.0, 25.0, 24.0, 26.0])]
    for higher, expected in ((True, [0, 0, 1, 0]), (False, [0, 1, 1, 1])):
        found = answers(
            EarlyStopping(metric="psnr", patience=1), records, higher_is_better={"psnr": higher}
        )
        assert [int(bool(one)) for one in found] == expected


def test_early_stopping_in_a_resumed_training_counts_on() -> None:
    records = [epoch(i + 1, loss) for i, loss in enumerate([5.0, 4.0, 4.1, 4.2, 4.3])]
    whole = answers(EarlyStopping(patience=3), records)
    first = EarlyStopping(patience=3).start(Running("seed"))
    before = [first.record(record) for record in records[:3]]
    state = json.loads(json.dumps(first.state()))
    after = answers(EarlyStopping(patience=3), records[3:], state=state)
    assert before + after == whole
    assert whole[-1] is not None


def test_reporters_resume_from_the_checkpoint(registry: Registry, tmp_path: Path) -> None:
    made = job(registry, reporters=["test/kept", {"early_stopping": {"patience": 5}}])
    folder = RunFolder(tmp_path / "run", resume=False)
    trainer = Trainer(made, folder=folder)
    for record in trainer.run():
        if isinstance(record, Epoch):
            folder.save(trainer.checkpoint())
            break
    saved = read_checkpoint(folder.checkpoint_path)
    states = saved.training["reporters"]
    assert states["test/kept"] == {"seen": 3}
    assert states["early_stopping"]["epoch"] == 1
    resumed = Trainer(made, resume=saved, folder=folder)
    (*_, last) = resumed.run()
    assert isinstance(last, Epoch)
    assert STARTED[-1].state == {"seen": 3}
    whole = Trainer(job(registry))
    (*_, expected) = whole.run()
    assert isinstance(expected, Epoch)
    assert (last.loss, last.metrics) == (expected.loss, expected.metrics)


def test_the_best_model_is_kept(registry: Registry, tmp_path: Path) -> None:
    made = job(registry, reporters=[{"best_checkpoint": {"metric": "test/error"}}], epochs=4)
    folder = RunFolder(tmp_path / "run", resume=False)
    trainer = Trainer(made, folder=folder)
    epochs = [record for record in trainer.run() if isinstance(record, Epoch)]
    best = min(epochs, key=lambda record: record.metrics["test/error"])
    saved = read_checkpoint(folder.path / "best.safetensors")
    assert saved.training["step"] == best.step
    assert Model.load(folder.path / "best.safetensors", registry=registry).weights is not None


def test_two_reporters_do_not_write_one_file(registry: Registry, tmp_path: Path) -> None:
    both = [{"best_checkpoint": {}}, {"best_checkpoint": {"metric": "test/error"}}]
    trainer = Trainer(
        job(registry, reporters=both), folder=RunFolder(tmp_path / "run", resume=False)
    )
    with pytest.raises(TrainingError) as caught:
        list(trainer.run())
    assert str(caught.value) == (
        "reporter 'best_checkpoint 2': best.safetensors is the file of the reporter 'best_checkpoint' "
        "already. Give one of them another `file`."
    )


@pytest.mark.parametrize(
    "file", ["checkpoint.safetensors", "model.safetensors", "best", "a/b.safetensors"]
)
def test_the_best_model_has_a_file_of_its_own(file: str) -> None:
    with pytest.raises(DescriptionError, match=r"file: expected a name such as best\.safetensors"):
        BestCheckpoint(file=file)


def test_the_log_has_every_record(registry: Registry, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", resume=False)
    trainer = Trainer(job(registry, reporters=["log"]), folder=folder)
    records = [record for record in trainer.run() if not isinstance(record, Stopped)]
    start, *lines = map(json.loads, folder.log_path.read_text().splitlines())
    assert (start["kind"], start["step"], start["pairs"]) == ("start", 0, 40)
    assert lines == [
        {"kind": "steps" if isinstance(r, Steps) else "epoch", **asdict(r)} for r in records
    ]


@pytest.mark.parametrize(
    ("reporters", "message"),
    [
        (["test/fails"], "reporter 'test/fails' failed: KeyError: 'disk'. Leave it out of"),
        (["test/holds"], "reporter 'test/holds' failed: TypeError: .*Tensor"),
        (["log"], "reporter 'log': needs a folder: give Trainer one"),
        (
            [{"early_stopping": {"metric": "test/errors"}}],
            "reporter 'early_stopping': the training has no metric 'test/errors'. Did you mean 'test/error",
        ),
    ],
)
def test_what_is_wrong_names_the_reporter(
    reporters: list[Any], message: str, registry: Registry
) -> None:
    with pytest.raises(TrainingError, match=message):
        list(Trainer(job(registry, reporters=reporters)).run())


def test_fields_of_reporters_are_checked_with_the_training_file(registry: Registry) -> None:
    with pytest.raises(DescriptionError, match=r"reporters\[0\].*patienc: unknown field"):
        job(registry, reporters=[{"early_stopping": {"patienc": 3}}])


def test_two_reporters_of_one_kind_have_states_of_their_own(registry: Registry) -> None:
    forms = [{"early_stopping": {"metric": name}} for name in ("loss", "test/error")]
    trainer = Trainer(job(registry, reporters=forms))
    list(trainer.run())
    assert list(trainer.reports.states()) == ["early_stopping", "early_stopping 2"]


def test_tensorboard_gets_losses_and_metrics(registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(tmp_path / "run", resume=False)
    trainer = Trainer(job(registry, reporters=["tensorboard"]), folder=folder)
    records = list(trainer.run())
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    steps = [record for record in records if isinstance(record, Steps)]
    assert found == [(record.step, pytest.approx(record.loss)) for record in steps]
    assert len(events.Scalars("metrics/test/error")) == 2

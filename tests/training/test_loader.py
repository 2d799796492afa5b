"""Training on a torch DataLoader, a Dataset or another iterable; expected values come from plain torch."""

from __future__ import annotations

import gc
import itertools
import json
import random
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

import graphnet as gn
from graphnet.sdk import Decided, Record, Running, Steps
from graphnet.training import Epoch

X = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(10, 3).sin()
Y = X.square().sum(1, keepdim=True)
LINEAR = {"layers": [{"linear": {"out_features": 1}}]}
IMAGES = {
    "input": {"channels": 1},
    "layers": [{"conv2d": {"out_channels": 1, "kernel_size": 3, "padding": 1}}],
}
TWO = {
    "inputs": {"image": {"shape": [2]}, "level": {"shape": [1]}},
    "layers": [
        {"id": "both", "concat": {}, "inputs": ["$image", "$level"]},
        {"linear": {"out_features": 1}},
    ],
}


def program(
    batch: int = 4, *, description: dict[str, Any] = LINEAR, seed: int = 0, **settings: Any
) -> gn.Program:
    shapes = {"model": [(batch, 3)]}
    if description is TWO:
        shapes["model"] = [(batch, 2), (batch, 1)]
    if description is IMAGES:
        shapes["model"] = [(batch, 1, 4, 4)]
    choices = {"loss": "mse", "optimizer": gn.SGD(lr=0.1), "device": "cpu", **settings}
    return gn.Model(description, seed=seed).compile(*shapes["model"], **choices)


class Recorded(gn.Reporter):
    """Keeps what it is told, and stops the training after `until` epochs."""

    until: int | None = None

    def start(self, running: Running) -> gn.Report:
        return RecordedReport(self, running)


class RecordedReport(gn.Report):
    latest: RecordedReport

    def __init__(self, settings: Recorded, running: Running) -> None:
        self.settings, self.running = settings, running
        self.records: list[Record] = []
        RecordedReport.latest = self

    def record(self, record: Record) -> str | None:
        self.records.append(record)
        done = isinstance(record, Epoch) and record.epoch == self.settings.until
        return "interrupted" if done else None


def same(one: gn.Program, other: gn.Program) -> bool:
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


# ---- what is trained


def test_shuffled_epochs_with_a_smaller_last_batch_are_those_of_torch() -> None:
    ours = program(dtype=torch.float64)
    module = torch.nn.Linear(3, 1, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(ours.weights["linear_1.weight"])
        module.bias.copy_(ours.weights["linear_1.bias"])

    def loader() -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(5)
        return DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True, generator=generator)

    expected = []
    theirs = loader()
    for _ in range(3):
        total = 0.0
        for x, y in theirs:
            loss = torch.nn.functional.mse_loss(module(x), y)
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient
            total += loss.item() * len(x)
        expected.append(total / 10)

    epochs = gn.train(ours, loader(), epochs=3)
    assert [epoch.step for epoch in epochs] == [3, 6, 9]
    assert [epoch.loss for epoch in epochs] == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(ours.weights["linear_1.weight"], module.weight.detach())
    torch.testing.assert_close(ours.weights["linear_1.bias"], module.bias.detach())


def test_drop_last_leaves_the_smaller_batch_out() -> None:
    ours = program(dtype=torch.float64)
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, drop_last=True)
    assert [epoch.step for epoch in gn.train(ours, loader, epochs=2)] == [2, 4]


def test_a_map_style_dataset_is_shuffled_in_batches_of_the_programs_size() -> None:
    seen: list[int] = []

    class Noted(Dataset[Any]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            seen.append(index)
            return X[index], Y[index]

    torch.manual_seed(3)
    (epoch,) = gn.train(program(5, dtype=torch.float64), Noted())
    assert epoch.step == 2
    assert sorted(seen) == list(range(10)) != seen


@pytest.mark.parametrize(
    "form",
    [
        lambda a, b, y: (a, b, y),
        lambda a, b, y: ((a, b), y),
        lambda a, b, y: [[a, b], [y]],
        lambda a, b, y: {"target": y, "level": b, "image": a},
        lambda a, b, y: ({"level": b, "image": a}, y),
        lambda a, b, y: ({"level": b, "image": a}, {"target": y}),
        lambda a, b, y: (a.numpy().astype(np.float64), b.numpy(), y.numpy()),
    ],
)
def test_each_form_of_a_batch_is_the_step_on_its_tensors(form: Callable[..., Any]) -> None:
    a, b, y = X[:4, :2].float(), X[:4, 2:].float(), Y[:4].float()
    stepped, trained = program(description=TWO), program(description=TWO)
    loss = stepped.step(a, b, y)
    (epoch,) = gn.train(trained, [form(a, b, y)])
    assert epoch.loss == pytest.approx(float(loss), rel=1e-6)
    assert same(stepped, trained)


def test_dicts_of_a_dataset_arrive_by_name() -> None:
    samples = [{"target": Y[i], "level": X[i, 2:], "image": X[i, :2]} for i in range(10)]

    class Samples(Dataset[Any]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return samples[index]

    ours, stepped = program(10, description=TWO), program(10, description=TWO)
    stepped.step(X[:, :2].float(), X[:, 2:].float(), Y.float())
    gn.train(ours, DataLoader(Samples(), batch_size=10))
    assert same(ours, stepped)


def test_data_is_converted_by_the_rule_of_all_data_sets() -> None:
    class Arrays(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image = np.full((1, 4, 4), 51 * index, dtype=np.uint8)
            return image, np.full((1, 4, 4), 0.25)  # float64

    ours, stepped = program(description=IMAGES), program(description=IMAGES)
    gn.train(ours, DataLoader(Arrays(), batch_size=4))
    images = torch.stack([torch.full((1, 4, 4), 0.2 * index) for index in range(4)])
    stepped.step(images, torch.full((4, 1, 4, 4), 0.25))
    torch.testing.assert_close(ours.weights["conv2d_1.weight"], stepped.weights["conv2d_1.weight"])


def test_a_model_with_several_outputs_takes_a_target_for_each_loss() -> None:
    description = {
        "layers": [
            {"id": "a", "linear": {"out_features": 1}, "inputs": ["$input"]},
            {"id": "b", "linear": {"out_features": 2}, "inputs": ["$input"]},
        ],
        "outputs": ["a", "b"],
    }
    ours, stepped = (
        program(4, description=description, loss={"a": "mse", "b": "l1"}) for _ in range(2)
    )
    x, a, b = X[:4].float(), Y[:4].float(), X[:4, :2].float()
    loss = stepped.loss(x, a, b)
    stepped.step(x, a, b)
    (epoch,) = gn.train(ours, [(x, {"target.b": b, "target.a": a})])
    assert epoch.loss == pytest.approx(float(loss))
    assert same(ours, stepped)
    expected = float(stepped.loss(x, a, b))
    again = gn.train(ours, [(x, a, b)], validation=[(x, a, b)])
    assert again[0].loss == pytest.approx(expected)
    with pytest.raises(gn.GraphnetError, match="metrics measure the model's one output"):
        gn.train(ours, [(x, a, b)], validation=[(x, a, b)], metrics=["accuracy"])


class Counted(IterableDataset[Any]):
    """Samples without a length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(X, Y, strict=True)


def test_an_iterable_without_length_trains_whole_passes(capsys: pytest.CaptureFixture[str]) -> None:
    ours = program(dtype=torch.float64)
    epochs = gn.train(ours, Counted(), epochs=2, reporters=[Recorded(), "progress"])
    assert [epoch.step for epoch in epochs] == [3, 6]
    assert RecordedReport.latest.running.steps_per_epoch is None
    assert "epoch 2/2" in capsys.readouterr().err


def test_an_endless_iterable_goes_on_where_the_last_epoch_ended() -> None:
    seen: list[int] = []

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        for number in itertools.count():
            seen.append(number)
            yield X[:4], Y[:4]

    ours = program(dtype=torch.float64)
    data = endless()
    epochs = gn.train(ours, data, epochs=2, steps_per_epoch=3)
    gn.train(ours, data, steps_per_epoch=2)
    assert [epoch.step for epoch in epochs] == [3, 6]
    assert seen == list(range(8))
    assert ours.steps_done == 8


def test_data_that_ends_within_an_epoch_of_steps_begins_anew() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=4)  # 3 batches
    epochs = gn.train(program(dtype=torch.float64), loader, epochs=2, steps_per_epoch=4)
    assert [epoch.step for epoch in epochs] == [4, 8]


# ---- what is measured


def test_validation_loss_and_metrics_are_means_over_all_samples() -> None:
    description = {"layers": [{"linear": {"out_features": 3}}]}
    ours = program(10, description=description, loss="cross_entropy")
    labels = torch.arange(10) % 3
    pairs = TensorDataset(X.float(), labels)
    (epoch,) = gn.train(
        ours, pairs, validation=DataLoader(pairs, batch_size=4), metrics=["accuracy"]
    )
    prediction = ours.predict(X.float())
    loss = torch.nn.functional.cross_entropy(prediction, labels)
    right = (prediction.argmax(1) == labels).double().mean()
    assert epoch.metrics == pytest.approx(
        {"validation_loss": float(loss), "accuracy": float(right)}
    )


def test_early_stopping_watches_the_validation_loss() -> None:
    stop = {"early_stopping": {"metric": "validation_loss", "patience": 2}}
    ours = program(dtype=torch.float64, optimizer=gn.SGD(lr=0.0))
    pairs = TensorDataset(X, Y)
    assert len(gn.train(ours, pairs, epochs=9, validation=pairs, reporters=[stop])) == 3


class Halved(gn.Schedule):
    def factor(self, step: int, total: int) -> float:
        return 1 - step / total


def test_a_schedule_counts_updates() -> None:
    ours = program(dtype=torch.float64, accumulate=2)
    loader = DataLoader(TensorDataset(X, Y), batch_size=2)  # 5 batches, 2 updates
    gn.train(ours, loader, schedule=Halved(), reporters=[Recorded()], log_every=1)
    steps = [one for one in RecordedReport.latest.records if isinstance(one, Steps)]
    assert [one.lr for one in steps] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.05])


def test_a_schedule_multiplies_the_learning_rate_of_this_call() -> None:
    ours = program(dtype=torch.float64)
    loader = DataLoader(TensorDataset(X, Y), batch_size=5)
    for _ in range(2):
        gn.train(ours, loader, epochs=2, schedule=Halved(), reporters=[Recorded()], log_every=1)
        steps = [one for one in RecordedReport.latest.records if isinstance(one, Steps)]
        assert [one.lr for one in steps] == pytest.approx([0.1, 0.075, 0.05, 0.025])
        assert ours.lr == 0.1
    with pytest.raises(gn.GraphnetError, match=r"a schedule needs .* Counted .* steps_per_epoch"):
        gn.train(ours, Counted(), schedule="cosine")


def test_gradients_that_wait_for_an_update_are_said() -> None:
    ours = program(dtype=torch.float64, accumulate=2)
    gn.train(ours, TensorDataset(X, Y), reporters=[Recorded()])  # 3 steps
    (said,) = [one for one in RecordedReport.latest.records if isinstance(one, Decided)]
    assert said.message.startswith("the last 1 steps have added up gradients")


# ---- what is refused


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X[:4, :2], Y[:4]), "input: expected 4x3, found 4x2 float64"),
        ((X[:4], X[:4]), "target: expected 4x1, found 4x3 float64"),
        ((X[:4], Y[:3]), "target: expected 4x1, found 3x1 float64"),
        ((X[:4], Y[:4], Y[:4]), r"expected 2 tensors \(input, target\), found 3"),
        ((X[:4],), r"expected 2 tensors \(input, target\), found 1; target: nothing"),
        (X[:4], r"expected 2 tensors \(input, target\), found 1; target: nothing"),
        ((), r"expected 2 tensors \(input, target\), found 0"),
        ({"inputs": X[:4], "target": Y[:4]}, "the program takes no 'inputs'. Did you mean 'input'"),
        ({"input": [X[:4], Y[:4]]}, "expected one tensor for 'input', found several"),
        ({"input": X[:4]}, r"expected 2 tensors \(input, target\), found 1; target: nothing"),
        ((X[:4].long(), Y[:4]), "input: a data set holds uint8, .* found torch.int64"),
        ((X[:4], "a cat"), "target: expected a tensor or a numpy array, found a str"),
        ((X[0, 0], Y[:4]), "input: expected a batch of samples, found a scalar"),
        ((X[:0], Y[:0]), "input: expected a batch of samples, found 0x3"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(batch: object, message: str) -> None:
    ours = program(dtype=torch.float64)
    with pytest.raises(gn.errors.DataError, match=f"the data, list: batch 2 of epoch 1: {message}"):
        gn.train(ours, [(X[:4], Y[:4]), batch])
    assert ours.steps_done == 1


@pytest.mark.parametrize("data", [X, {"input": X}, 3, "photos", b"photos"])
def test_data_that_is_no_loader_is_refused(data: Any) -> None:
    with pytest.raises(gn.errors.DataError, match="expected a torch DataLoader, a torch Dataset"):
        gn.train(program(), data)


@pytest.mark.parametrize(
    "data",
    [
        [],
        DataLoader(TensorDataset(X, Y), batch_size=11, drop_last=True),
        TensorDataset(X[:0], Y[:0]),
        iter(()),
    ],
)
def test_empty_data_is_refused(data: Any) -> None:
    ours = program(dtype=torch.float64)
    with pytest.raises(
        gn.errors.DataError, match=r"the data, \w+: .*(one batch or more|num_samples)"
    ):
        gn.train(ours, data)
    with pytest.raises(gn.errors.DataError, match=r"the validation data, "):
        gn.train(ours, [(X[:4], Y[:4])], validation=data)


def test_a_generator_that_has_ended_is_named() -> None:
    ours = program(dtype=torch.float64)
    with pytest.raises(gn.errors.DataError, match=r"none in epoch 2.*steps_per_epoch|epoch 2 none"):
        gn.train(ours, (pair for pair in [(X[:4], Y[:4])]), epochs=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer greater than 0, got 0"),
        ({"epochs": True}, "epochs"),
        ({"steps_per_epoch": 2.5}, "steps_per_epoch"),
        ({"log_every": -1}, "log_every"),
        ({"resume": True}, "resume needs the folder"),
        ({"metrics": ["accuracy"]}, "validation="),
        ({"schedule": "constnt"}, "constant"),
        ({"reporters": ["progressbar"]}, "progress"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(gn.GraphnetError, match=message):
        gn.train(program(), [(X[:4], Y[:4])], **settings)


class Broken(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 5:
            raise ValueError("photo 5 cannot be read")
        return X[index], Y[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_of_the_data_set_comes_with_its_own_traceback_once(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After an exception torch waits so long for a worker.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.05)
    ours = program(dtype=torch.float64)
    message, text = failure(ours, DataLoader(Broken(), batch_size=4, num_workers=workers))
    gc.collect()
    where = "the data, Broken: batch 2 of epoch 1 failed"
    assert message == f"{where}: ValueError: photo 5 cannot be read"
    assert text.count('raise ValueError("photo 5 cannot be read")') == 1
    assert ours.steps_done == 1


def failure(ours: gn.Program, data: Any) -> tuple[str, str]:
    """The message and the traceback of the error that the data raises."""
    with pytest.raises(gn.errors.DataError) as caught:
        gn.train(ours, data)
    return str(caught.value), "".join(traceback.format_exception(caught.value))


def test_a_loss_that_is_not_finite_names_the_batch_and_what_made_it() -> None:
    ours, stepped = program(dtype=torch.float64), program(dtype=torch.float64)
    bad = X[4:7].clone()
    bad[1, 0] = torch.nan
    batches = [(X[:4], Y[:4]), (bad, Y[4:7]), (X[:4], Y[:4])]
    message = (
        r"the loss is nan within steps 1 to 3 \(learning rate 0.1\). In step 2, batch 2 of epoch 1, the "
        r"input 'input' of sample 1 \(counted from 0\) is not finite"
    )
    with pytest.raises(gn.errors.TrainingError, match=message):
        gn.train(ours, batches)
    stepped.step(X[:4], Y[:4])
    assert same(ours, stepped)  # the weights before that step
    assert ours.steps_done == 1


def test_a_learning_rate_that_is_too_large_names_the_node() -> None:
    class Rising(gn.Schedule):
        def factor(self, step: int, total: int) -> float:
            return 1e200 if step == 1 else 1.0

    ours = program(dtype=torch.float64)
    with pytest.raises(gn.errors.TrainingError, match=r"In step 3, batch 3 of epoch 1, .*'@loss"):
        gn.train(ours, [(X[:4], Y[:4])] * 4, schedule=Rising())
    assert ours.lr == 0.1


def test_batches_that_are_too_large_to_be_kept_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphnet.training.loop._MOST_BYTES", 200)
    ours = program(dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in ours.weights.items()}
    with pytest.raises(gn.errors.TrainingError, match="a smaller log_every finds more"):
        gn.train(ours, [(X[:4], Y[:4]), (X[:4] * torch.nan, Y[:4])])
    assert all(torch.equal(ours.weights[name], before[name]) for name in before)


# ---- what is resumed


class Augmented(Dataset[Any]):
    """Each sample has noise of torch, and of Python."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] + 0.1 * torch.rand(3, dtype=torch.float64), Y[index] + random.random()


def loader_of(workers: int, generator: torch.Generator | None) -> DataLoader[Any]:
    return DataLoader(
        Augmented(), batch_size=4, shuffle=True, num_workers=workers, generator=generator
    )


@pytest.mark.parametrize(
    ("workers", "own"), [(0, False), (0, True), (1, True)], ids=["plain", "generator", "workers"]
)
def test_a_resumed_training_has_the_bits_of_one_that_was_not_interrupted(
    workers: int, own: bool, tmp_path: Path
) -> None:
    def run(seed: int, **settings: Any) -> tuple[gn.Program, list[Epoch]]:
        torch.manual_seed(seed)
        random.seed(seed)
        generator = torch.Generator().manual_seed(seed) if own else None
        ours = program(dtype=torch.float64, optimizer=gn.Adam(lr=0.01), ema=0.9)
        pairs = DataLoader(Augmented(), batch_size=5)
        return ours, gn.train(
            ours,
            loader_of(workers, generator),
            epochs=3,
            validation=pairs,
            schedule="cosine",
            **settings,
        )

    whole, epochs = run(1)
    _, before = run(1, folder=tmp_path / "run", reporters=[Recorded(until=1)])
    resumed, after = run(2, folder=tmp_path / "run", resume=True, reporters=[Recorded()])
    losses = [(epoch.loss, epoch.metrics) for epoch in epochs]
    assert [(epoch.loss, epoch.metrics) for epoch in [*before, *after]] == losses
    assert same(whole, resumed)
    assert all(torch.equal(whole.averages[n], resumed.averages[n]) for n in whole.averages)
    said = [one.message for one in RecordedReport.latest.records if isinstance(one, Decided)]
    assert len(said) == 1
    assert "numpy's global random state" in said[0]
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["kind"] == "epoch"]
    assert steps == [3, 6, 9]
    loaded = gn.load(tmp_path / "run" / "model.safetensors")
    assert torch.equal(loaded.predict(X), resumed.predict(X))


class Own(torch.utils.data.Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: [(X[:4], Y[:4])], "what the iterable yields after it has started again"),
        (Counted, "what the iterable data set yields after it has started again"),
        (
            lambda: DataLoader(TensorDataset(X, Y), batch_size=4, sampler=Own()),
            "what its own sampler remembers",
        ),
        (
            lambda: DataLoader(
                TensorDataset(X, Y),
                batch_size=4,
                sampler=RandomSampler(range(10), generator=torch.Generator()),
            ),
            "what its own sampler remembers",
        ),
        (
            lambda: DataLoader(
                TensorDataset(X, Y), batch_size=4, num_workers=1, persistent_workers=True
            ),
            "what its persistent workers remember",
        ),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_said(
    make: Callable[[], Any], said: str, tmp_path: Path
) -> None:
    for resume in (False, True):
        ours = program(dtype=torch.float64)
        reporters = [Recorded(until=1)]
        settings = {"epochs": 2, "folder": tmp_path / "run", "reporters": reporters}
        gn.train(ours, make(), resume=resume, **settings)
    assert said in RecordedReport.latest.records[0].message  # type: ignore[union-attr]


def test_a_resumed_epoch_of_steps_says_that_the_data_begins_anew(tmp_path: Path) -> None:
    for resume in (False, True):
        ours = program(dtype=torch.float64)
        data = DataLoader(TensorDataset(X, Y), batch_size=4)
        settings = {"epochs": 2, "steps_per_epoch": 2, "folder": tmp_path / "run"}
        gn.train(ours, data, resume=resume, reporters=[Recorded(until=1)], **settings)
    said = RecordedReport.latest.records[0]
    assert isinstance(said, Decided)
    assert "the position in the data, which begins anew" in said.message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 3}, "epochs 2, now 3"),
        ({"schedule": "cosine"}, "schedule None, now 'cosine'"),
        ({"data": TensorDataset(X[:4], Y[:4])}, "steps_per_epoch 3, now 1"),
        ({"ours": {"optimizer": gn.Adam(lr=0.1)}}, "the training state of the checkpoint differs"),
        ({"ours": {"description": {"layers": [{"linear": {"out_features": 1}}, "relu"]}}}, "model"),
        (
            {"data": DataLoader(TensorDataset(X, Y), 4, generator=torch.Generator())},
            "another loader: expected none that has a `generator`",
        ),
    ],
)
def test_another_training_is_not_resumed(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pairs = TensorDataset(X, Y)
    folder = tmp_path / "run"
    gn.train(program(dtype=torch.float64), pairs, epochs=2, folder=folder)
    ours = program(dtype=torch.float64, **changed.get("ours", {}))
    settings = {"epochs": 2, "folder": folder, "resume": True, "data": pairs, **changed}
    settings.pop("ours", None)
    with pytest.raises(gn.errors.CheckpointError, match=re.escape(message)):
        gn.train(ours, **settings)
    with pytest.raises(gn.errors.CheckpointError, match="already holds a run"):
        gn.train(ours, pairs, folder=folder)
    with pytest.raises(gn.errors.CheckpointError, match="no checkpoint to resume from"):
        gn.train(ours, pairs, folder=tmp_path / "other", resume=True)


def test_the_best_checkpoint_is_kept_in_the_folder(tmp_path: Path) -> None:
    pairs: Sequence[Any] = TensorDataset(X, Y)
    reporters = [{"best_checkpoint": {"metric": "validation_loss"}}]
    ours = program(dtype=torch.float64)
    gn.train(ours, pairs, validation=pairs, folder=tmp_path, reporters=reporters)
    best = gn.load(tmp_path / "best.safetensors")
    assert torch.equal(best.predict(X), ours.predict(X))

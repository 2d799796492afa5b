"""Training: what a run does to the weights, that it resumes to the bit, and what it leaves behind."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphnet.errors import CheckpointError, DataError, DescriptionError, GraphError, TrainingError
from graphnet.model import Checkpoint, Model, read_checkpoint, write_checkpoint
from graphnet.sdk import DataSet, Metric, Pairs, Register, Registry, hookimpl, load_registry
from graphnet.training import Decided, Epoch, Job, RunFolder, Steps, Stopped, Trainer, read_job
from graphnet.training.batches import MemoryBatches
from graphnet.training.config import make_job
from tests.support.models import SEED, Acme


class Noise(DataSet):
    """Random pairs, and a way to ask for a broken one."""

    count: int = 40
    side: int = 8
    nan: bool = False
    path: str = ""  # a file that holds a seed, the count and the side

    def load(self) -> Pairs:
        seed, count, side = 7, self.count, self.side
        if self.path:
            seed, count, side = map(int, Path(self.path).read_text().split())
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.randint(
            0, 256, (2, count, 3, side, side), generator=generator, dtype=torch.uint8
        )
        if self.nan:
            return Pairs(torch.full(pairs[1].shape, torch.nan), pairs[1])
        return Pairs(pairs[0], pairs[1])


class Error(Metric):
    """The mean absolute error."""

    higher_is_better = False
    power: float = 1.0

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        return ((prediction - target).abs() ** self.power).mean(dim=(1, 2, 3))


class Data(Acme):
    @hookimpl
    def graphnet_datasets(self, register: Register) -> None:
        register("test/noise", Noise)

    @hookimpl
    def graphnet_metrics(self, register: Register) -> None:
        register("test/error", Error)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Data()], entry_points=False)


def job(registry: Registry, **changes: Any) -> Job:
    data: dict[str, Any] = {
        "model": SEED,
        "data": {"train": {"test/noise": {}}, "validation": {"test/noise": {"count": 5}}},
        "loss": "mse",
        "optimizer": {"sgd": {"lr": 0.5, "momentum": 0.9}},
        "epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "metrics": ["test/error"],
        "log_every": 3,
        **changes,
    }
    return make_job(data, registry=registry)


def test_a_run_equals_the_same_training_written_in_torch(registry: Registry) -> None:
    trainer = Trainer(job(registry, precision="float64"))
    network = nn.Sequential(
        nn.Conv2d(3, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 2, 2), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2), nn.Sigmoid(),
    ).double()  # fmt: skip
    with torch.no_grad():
        for mine, theirs in zip(
            network.parameters(), trainer.program.weights.values(), strict=True
        ):
            mine.copy_(theirs)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for epoch in range(2):
        order = trainer.feed.order(epoch)
        assert sorted(order.tolist()) == list(range(40))
        for index in order.split(8):
            loss = nn.functional.mse_loss(
                network(trainer.pairs.inputs[index].double() / 255),
                trainer.pairs.targets[index].double() / 255,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    records = list(trainer.run())
    for mine, theirs in zip(network.parameters(), trainer.program.weights.values(), strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-10, atol=1e-12)
    steps = [record for record in records if isinstance(record, Steps)]
    epochs = [record for record in records if isinstance(record, Epoch)]
    assert [record.step for record in steps] == [3, 5, 8, 10]
    assert steps[0].loss == pytest.approx(sum(losses[:3]) / 3)
    assert epochs[1].loss == pytest.approx(sum(losses[5:]) / 5)
    validation = trainer.validation
    assert validation is not None
    with torch.no_grad():
        error = (
            network(validation.inputs.double() / 255) - validation.targets.double() / 255
        ).abs()
    assert epochs[1].metrics["test/error"] == pytest.approx(float(error.mean()))


@pytest.mark.parametrize("stop_after", [0, 1, 4, 5, 7])
@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": {"sgd": {"lr": 0.01}}},
        {"optimizer": {"adamw": {"lr": 0.01}}},
        {"optimizer": {"muon": {"lr": 0.01}}},
        {"ema": 0.9},
        {"accumulate": 2, "ema": 0.9, "batch_size": 4},
        {"clip_grad_norm": 0.01, "parameters": [{"match": "*_2.*", "lr_scale": 0.5}]},
    ],
    ids=str,
)
def test_a_stopped_and_resumed_run_gives_the_same_bits(
    registry: Registry, stop_after: int, more: dict[str, Any], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        **more,
        "schedule": "cosine",
        "model": {**SEED, "layers": [*SEED["layers"], "acme/dropout"]},
    }
    whole = Trainer(job(registry, **changes))
    expected = [record for record in whole.run() if isinstance(record, Epoch)]

    count = itertools.count()
    first = Trainer(job(registry, **changes))
    records = list(first.run(lambda: next(count) >= stop_after))
    assert records[-1] == Stopped(stop_after // whole.steps_per_epoch + 1, stop_after)
    write_checkpoint(tmp_path / "c.safetensors", first.checkpoint())
    second = Trainer(job(registry, **changes), resume=read_checkpoint(tmp_path / "c.safetensors"))
    found = [record for record in second.run() if isinstance(record, Epoch)]
    for name, weight in whole.program.weights.items():
        assert torch.equal(weight, second.program.weights[name]), name
    for name, state in whole.program.optimizer_state.items():
        assert torch.equal(state, second.program.optimizer_state[name]), name
    assert found[-1].metrics == expected[-1].metrics
    assert found[-1].loss == expected[-1].loss


def test_small_batches_together_train_as_large_ones(registry: Registry) -> None:
    changes = {"optimizer": {"adam": {"lr": 0.01}}, "schedule": "cosine", "precision": "float64"}
    large = Trainer(job(registry, **changes))
    small = Trainer(job(registry, batch_size=4, accumulate=2, **changes))
    assert (small.steps_per_epoch, large.steps_per_epoch) == (10, 5)
    found, expected = (
        [record.loss for record in trainer.run() if isinstance(record, Epoch)]
        for trainer in (small, large)
    )
    assert found == pytest.approx(expected, rel=1e-10)
    for name, weight in large.program.weights.items():
        torch.testing.assert_close(small.program.weights[name], weight, rtol=1e-8, atol=1e-11)


def test_an_epoch_has_whole_updates(registry: Registry) -> None:
    trainer = Trainer(job(registry, batch_size=4, accumulate=3))  # 12 of 40 pairs for an update
    assert trainer.steps_per_epoch == 9
    epochs = [trainer.feed.samples(step)[0] for step in range(18)]
    assert epochs == [0] * 9 + [1] * 9
    assert [r.step for r in trainer.run() if isinstance(r, Epoch)] == [9, 18]


def test_a_bad_batch_is_found_among_those_that_add_up(registry: Registry) -> None:
    changes: dict[str, Any] = {"batch_size": 2, "accumulate": 4, "metrics": [], "log_every": 12}
    trainer = Trainer(job(registry, **changes))
    assert isinstance(trainer.feed, MemoryBatches)
    inputs = trainer.feed.tensors[0].tensor.float().div(255)
    inputs[31, 0, 0, 0] = torch.nan
    trainer.feed.tensors[0].tensor = inputs
    step = int((trainer.feed.order(0) == 31).nonzero()) // 2 + 1
    with pytest.raises(TrainingError, match=f"In step {step}, the input 'input' of sample 31 "):
        list(trainer.run())
    assert trainer.program.steps_done == step - 1
    assert all(bool(w.isfinite().all()) for w in trainer.program.weights.values())


def test_a_bad_update_is_found_in_the_step_that_makes_it(registry: Registry) -> None:
    changes: dict[str, Any] = {
        "batch_size": 2,
        "accumulate": 4,
        "log_every": 20,
        "optimizer": {"sgd": {"lr": 1e30}},
        "parameters": [{"match": "*.bias", "lr_scale": 1e10}],
    }
    with pytest.raises(TrainingError, match=r"In step 4, in the update, node '@lr' \(lr, from"):
        list(Trainer(job(registry, **changes)).run())


def test_ema_weights_are_evaluated_and_saved(registry: Registry, tmp_path: Path) -> None:
    trainer = Trainer(job(registry, ema=0.9))
    run = RunFolder(tmp_path / "run", resume=False)
    (*_, last) = trainer.run()
    run.save(trainer.checkpoint())
    run.finish(trainer.checkpoint())
    validation = trainer.validation
    assert validation is not None
    assert isinstance(last, Epoch)
    for path in (run.model_path, run.checkpoint_path):  # both open as the model that was measured
        model = Model.load(path, registry=registry)
        assert model.weights is not None
        for name, tensor in model.weights.items():
            assert torch.equal(tensor, trainer.program.averages[name])
            assert not torch.equal(tensor, trainer.program.weights[name])
        error = model.predict(validation.inputs / 255) - validation.targets / 255
        assert float(error.abs().mean()) == pytest.approx(last.metrics["test/error"])


def test_resuming_with_another_configuration_is_refused(registry: Registry, tmp_path: Path) -> None:
    trainer = Trainer(job(registry))
    with pytest.raises(
        CheckpointError, match="another configuration: optimizer, batch_size differ"
    ):
        Trainer(
            job(registry, batch_size=4, optimizer={"sgd": {"lr": 0.1}}), resume=trainer.checkpoint()
        )


def test_a_resumed_run_may_change_some_fields_and_says_which(
    registry: Registry, tmp_path: Path
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).write_text("7 40 8")
    data = {"train": {"test/noise": {"path": str(tmp_path / "here")}}}
    first = Trainer(job(registry, data=data, metrics=[]))
    list(first.run())
    moved = {"train": {"test/noise": {"path": str(tmp_path / "there")}}}
    changes: dict[str, Any] = {"data": moved, "metrics": [], "epochs": 3, "log_every": 5}
    again = Trainer(job(registry, **changes), resume=first.checkpoint())
    records = list(again.run())
    notes = [record.message for record in records if isinstance(record, Decided)]
    assert [note.partition(" was ")[0] for note in notes] == ["data", "epochs", "log_every"]
    assert "the schedule spans all epochs" in notes[1]
    whole = Trainer(job(registry, **changes))
    list(whole.run())
    assert [record.epoch for record in records if isinstance(record, Epoch)] == [3]
    for name, weight in whole.program.weights.items():
        assert torch.equal(weight, again.program.weights[name])


def test_a_resumed_run_has_at_least_the_epochs_of_its_checkpoint(registry: Registry) -> None:
    first = Trainer(job(registry))
    list(first.run())
    with pytest.raises(CheckpointError, match="has 2 epochs, expected at most 1, .* more epochs"):
        Trainer(job(registry, epochs=1), resume=first.checkpoint())


@pytest.mark.parametrize("stop_after", [1, 2, 4, 7])
def test_a_resumed_run_has_the_records_of_one_that_was_not_stopped(
    registry: Registry, stop_after: int
) -> None:
    changes: dict[str, Any] = {"report": ["gradient_norm"], "log_every": 3}
    expected = [as_numbers(one) for one in Trainer(job(registry, **changes)).run()]
    count = itertools.count()
    first = Trainer(job(registry, **changes))
    records = list(first.run(lambda: next(count) >= stop_after))
    second = Trainer(job(registry, **changes), resume=first.checkpoint())
    assert [as_numbers(one) for one in [*records[:-1], *second.run()]] == expected


def as_numbers(record: object) -> dict[str, Any]:
    """A record without times."""
    assert isinstance(record, Steps | Epoch)
    times = ("steps_per_s", "elapsed_s", "waiting")
    return {name: value for name, value in asdict(record).items() if name not in times}


def test_resuming_with_another_model_is_refused(registry: Registry, tmp_path: Path) -> None:
    description = SEED | {"layers": ["sigmoid" if one == "relu" else one for one in SEED["layers"]]}
    write_checkpoint(tmp_path / "c.safetensors", Trainer(job(registry)).checkpoint())
    changed = job(registry)
    changed.model = Model(description, registry=registry)  # the file that `model` names has changed
    with pytest.raises(CheckpointError, match="made with another model than the file describes"):
        Trainer(changed, resume=read_checkpoint(tmp_path / "c.safetensors"))


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize(
    ("now", "message"),
    [
        ("7 24 8", "it had 40 pairs of 3x8x8 and 3x8x8, now it has 24 pairs of 3x8x8 and 3x8x8"),
        ("7 4 8", "it had 40 pairs of .*, now it has 4 pairs"),
        ("7 80 8", "it had 40 pairs of .*, now it has 80 pairs"),
        ("7 40 12", "it had 40 pairs of 3x8x8 .*, now it has 40 pairs of 3x12x12"),
        ("8 40 8", "it still has 40 pairs, but their contents differ"),
    ],
)
def test_resuming_with_other_data_is_refused(
    registry: Registry, tmp_path: Path, name: str, now: str, message: str
) -> None:
    """The training file is the same, but the files that it names have changed."""
    for one in ("train", "validation"):
        (tmp_path / one).write_text("7 40 8")
    data = {one: {"test/noise": {"path": str(tmp_path / one)}} for one in ("train", "validation")}
    trainer = Trainer(job(registry, data=data))
    for record in trainer.run():
        if isinstance(record, Epoch):
            break
    saved = trainer.checkpoint()
    write_checkpoint(tmp_path / "c.safetensors", saved)
    (last,) = (
        r for r in Trainer(job(registry, data=data), resume=saved).run() if isinstance(r, Epoch)
    )
    assert last.epoch == 2
    (tmp_path / name).write_text(now)
    with pytest.raises(CheckpointError, match=rf"data\.{name} is not the data set .*: {message}"):
        Trainer(job(registry, data=data), resume=read_checkpoint(tmp_path / "c.safetensors"))


def test_a_checkpoint_without_a_fingerprint_of_its_data_resumes_and_says_so(
    registry: Registry,
) -> None:
    saved = Trainer(job(registry)).checkpoint()
    training = {key: value for key, value in saved.training.items() if key != "data"}
    (record, *_) = Trainer(job(registry), resume=replace(saved, training=training)).run()
    assert isinstance(record, Decided)
    assert "does not identify data.train: a change of the data since then" in record.message


def test_a_resumed_run_says_that_kernels_are_others(registry: Registry) -> None:
    saved = Trainer(job(registry)).checkpoint()
    (record, *_) = Trainer(job(registry), resume=saved).run()
    assert isinstance(record, Steps)
    kernels = {**saved.training["kernels"], "relu_1": "conv2d_relu [acme]"}
    other = replace(saved, training={**saved.training, "kernels": kernels})
    (record, *_) = Trainer(job(registry), resume=other).run()
    assert isinstance(record, Decided)
    assert record.message.startswith("kernels are not those that the checkpoint was made with")
    assert "relu_1: conv2d_relu [acme] -> " in record.message


def test_measuring_that_fails_loses_no_step_and_is_done_when_resumed(registry: Registry) -> None:
    """The checkpoint behind an epoch's last Steps record goes on with the epoch's metrics."""
    whole = list(Trainer(job(registry)).run())
    trainer = Trainer(job(registry))
    for record in trainer.run():
        if isinstance(record, Steps) and record.step == trainer.steps_per_epoch:
            break
    rest = list(Trainer(job(registry), resume=trainer.checkpoint()).run())
    (first, again) = (next(r for r in records if isinstance(r, Epoch)) for records in (whole, rest))
    assert (again.epoch, again.step, again.loss, again.metrics) == (
        (first.epoch, first.step, first.loss, first.metrics)
    )
    assert rest[0] == again
    assert [type(record) for record in rest] == [Epoch, Steps, Steps, Epoch]


def test_a_model_of_several_outputs_is_refused(registry: Registry) -> None:
    description = {
        "input": {"channels": 3},
        "layers": [{"id": "a", "relu": {}}, {"id": "b", "sigmoid": {}, "inputs": ["$input"]}],
        "outputs": ["a", "b"],
    }
    with pytest.raises(DataError, match="for a model of one output, this one has a, b"):
        Trainer(job(registry, model=description))


def test_validation_images_of_sizes_that_the_network_changes_are_refused(
    registry: Registry,
) -> None:
    changes = {"data": {"train": {"test/noise": {}}, "validation": {"test/noise": {"side": 6}}}}
    with pytest.raises(DataError, match=r"makes \(3, 4, 4\) of the validation set's \(3, 6, 6\)"):
        Trainer(job(registry, **changes))


def test_an_empty_validation_set_is_refused(registry: Registry) -> None:
    with pytest.raises(DescriptionError, match="data.validation: expected a name"):
        job(registry, data={"train": {"test/noise": {}}, "validation": {}})


def test_metrics_without_a_validation_set_are_refused(registry: Registry) -> None:
    with pytest.raises(DescriptionError, match="metrics: metrics are measured on a validation set"):
        job(registry, data={"train": {"test/noise": {}}})


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"memory": "100%"}])
def test_training_takes_precision_and_memory(registry: Registry, changes: dict[str, Any]) -> None:
    trainer = Trainer(job(registry, **changes))
    losses = [record.loss for record in trainer.run() if isinstance(record, Epoch)]
    plain = Trainer(job(registry))
    expected = [record.loss for record in plain.run() if isinstance(record, Epoch)]
    assert losses == pytest.approx(expected, rel=0.01)
    assert trainer.program.plan != plain.program.plan or "memory" in changes


def test_a_training_file_says_where_a_selector_is_wrong(registry: Registry) -> None:
    with pytest.raises(DescriptionError) as caught:
        job(
            registry,
            parameters=[{"match": "*.bias", "momentum": 0.0}, {"match": "*", "wieght_decay": 0.0}],
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "parameters[1].wieght_decay: unknown field. Did you mean 'weight_decay'?",
    ]
    with pytest.raises(DescriptionError, match=r"parameters\[0\]\.match: 'stem\.\*' matches no"):
        Trainer(job(registry, parameters=[{"match": "stem.*", "lr_scale": 0.1}]))


def test_the_record_of_a_job_states_its_updates_as_the_file_does(registry: Registry) -> None:
    selectors = [{"match": "*.bias", "betas": [0.5, 0.75]}, {"match": "*", "lr_scale": 0.5}]
    stated = {"parameters": selectors, "clip_grad_norm": 1.0, "accumulate": 2}
    record = job(registry, optimizer="adam", **stated).record()
    assert json.loads(json.dumps(record)) == record
    assert {name: record[name] for name in stated} == stated
    assert record["ema"] is None
    plain = job(registry).record()
    assert (plain["parameters"], plain["clip_grad_norm"], plain["accumulate"]) == ([], None, 1)


def test_parameters_that_are_no_list_are_refused(registry: Registry) -> None:
    with pytest.raises(DescriptionError, match=r"parameters: expected a list of \{match: PATTERN"):
        job(registry, parameters={"match": "*"})


def test_a_loss_that_is_not_finite_ends_training_in_words(registry: Registry) -> None:
    trainer = Trainer(job(registry, data={"train": {"test/noise": {"nan": True}}}, metrics=[]))
    with pytest.raises(TrainingError, match="the loss is nan within steps 1 to 3"):
        list(trainer.run())


def test_batch_larger_than_the_data_is_an_error(registry: Registry) -> None:
    with pytest.raises(DataError, match="batch_size is 64, but the data set has 40 pairs"):
        Trainer(job(registry, batch_size=64))
    with pytest.raises(
        DataError, match="batch_size is 8 and accumulate 6, but the data set has 40"
    ):
        Trainer(job(registry, accumulate=6))


def test_data_that_does_not_fit_the_network_is_named(registry: Registry) -> None:
    grey = {"input": {"channels": 1}, "layers": ["relu"]}
    with pytest.raises(
        GraphError,
        match=r"data.train \(test/noise\) gives inputs of 3x8x8: model: input 'input' expects channels 1",
    ):
        Trainer(job(registry, model=grey))


def test_targets_must_have_the_networks_shape(registry: Registry) -> None:
    layers = [{"conv2d": {"out_channels": 1, "kernel_size": 1}}]
    with pytest.raises(DataError, match=r"inputs \(3, 8, 8\) .* a target \(1, 8, 8\)"):
        Trainer(job(registry, model={"layers": layers}))


def test_a_model_file_is_no_training_file(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("layers: [relu]")
    with pytest.raises(DescriptionError, match="net.yaml: this is a model file.*model: net.yaml"):
        read_job(tmp_path / "net.yaml", registry=load_registry(entry_points=False))


def test_a_problem_is_where_the_field_stands(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        """
model:
  layers:
    - relu
    - conv2d: {out_channels: 3, kernel_sizes: 3}
data:
  train:
    test/noise:
      cuont: 3
loss: mse
optimizer:
  sgd:
    lr: -1
epochs: 1
batch_size: 4
"""
    )
    with pytest.raises(DescriptionError) as caught:
        read_job(path, registry=registry)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}:5:15: layers[1].conv2d.kernel_size: must be given",
        f"{path}:5:47: layers[1].conv2d.kernel_sizes: unknown field. Did you mean 'kernel_size'?",
        f"{path}:13:9: optimizer.sgd.lr: expected greater than or equal to 0, found -1",
        f"{path}:9:14: data.train.test/noise.cuont: unknown field. Did you mean 'count'?",
    ]


def test_field_of_the_wrong_type_is_one_problem(registry: Registry) -> None:
    with pytest.raises(DescriptionError) as caught:
        job(registry, loss=5, model=[])
    assert [str(problem) for problem in caught.value.problems] == [
        "model: expected string or mapping, found []",
        "loss: expected string or mapping or list, found 5",
    ]


def test_every_problem_of_a_training_file_comes_at_once(registry: Registry) -> None:
    with pytest.raises(DescriptionError) as caught:
        job(
            registry,
            optimizer={"sdg": {"lr": 1.0}},
            schedule={"warm_up": {}},
            metrics=["psnrr"],
            model={"layers": ["sigmoyd"]},
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "metrics[0]: unknown metric 'psnrr'. Known: accuracy, test/error.",
        "model.layers[0].sigmoyd: unknown layer 'sigmoyd'. Did you mean 'sigmoid' or 'hardsigmoid'?",
        "optimizer: unknown optimizer 'sdg'. Did you mean 'sgd'?",
        "schedule.warm_up.steps: must be given. Write {'warm_up': {'steps': VALUE}}.",
    ]
    with pytest.raises(DescriptionError) as caught:
        job(registry, epochs=0, batch_size="many", seeed=1)
    assert [str(problem) for problem in caught.value.problems] == [
        "epochs: expected greater than 0, found 0",
        "batch_size: expected integer, found 'many'",
        "seeed: unknown field. Did you mean 'seed'?",
    ]


def test_unknown_fields_of_a_training_file_are_compared_with_the_fields_of_their_level(
    registry: Registry,
) -> None:
    with pytest.raises(DescriptionError) as caught:
        job(registry, train="photos", data={"train": "photos", "traain": "photos"})
    inner, outer = (problem.message for problem in caught.value.problems)
    assert inner == "unknown field. Did you mean 'train'?"
    assert "'train'" not in outer
    with pytest.raises(DescriptionError) as caught:
        job(registry, zzzz=1)
    (problem,) = caught.value.problems
    known = problem.message.removeprefix("unknown field. Known: ").rstrip(".").split(", ")
    assert len(known) == len(set(known))
    assert {"optimizer", "ema", "saved_dtype", "epochs"} < set(known)


# -- checkpoints and run folders ---------------------------------------------------------------------


def weights() -> Mapping[str, torch.Tensor]:
    return {"conv2d_1.weight": torch.rand(8, 3, 2, 2), "conv2d_1.bias": torch.rand(8)}


def test_checkpoint_reads_back_equal(registry: Registry, tmp_path: Path) -> None:
    description = Model(SEED, registry=registry).description
    saved = Checkpoint(
        description,
        weights(),
        {"layers": {}},
        {"step": 3, "config": {"a": [1]}},
        {"x:m": torch.ones(2)},
    )
    write_checkpoint(tmp_path / "c.safetensors", saved)
    read = read_checkpoint(tmp_path / "c.safetensors")
    assert read.description == description
    assert (read.versions, read.training) == (saved.versions, saved.training)
    for mine, theirs in (
        (saved.weights, read.weights),
        (saved.training_state, read.training_state),
    ):
        assert list(mine) == sorted(theirs, key=list(mine).index)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_write_that_fails_leaves_the_old_file(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    saved = Checkpoint(Model(SEED, registry=registry).description, weights())
    write_checkpoint(path, saved)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)"):
        write_checkpoint(path, saved)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64])
def test_a_damaged_checkpoint_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, Checkpoint(Model(SEED, registry=registry).description, weights()))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path)


def test_a_model_is_saved_under_a_name_that_load_reads(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"best\.pt: .* a name such as best\.safetensors"):
        Model(SEED, weights=weights()).save(tmp_path / "best.pt")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_are_named(registry: Registry) -> None:
    model = Model(SEED, registry=registry, weights=weights())
    with pytest.raises(CheckpointError, match=r"no tensor for 'conv2d_2.weight'"):
        model.predict(torch.rand(1, 3, 8, 8))
    wrong = {**weights(), "conv2d_1.weight": torch.rand(8, 3, 1, 1)}
    with pytest.raises(CheckpointError, match=r"'conv2d_1.weight' must be 8x3x2x2 float32"):
        Model(SEED, registry=registry, weights=wrong).predict(torch.rand(1, 3, 8, 8))


def test_a_model_that_needs_a_lost_layer_says_where_it_came_from(
    registry: Registry, tmp_path: Path
) -> None:
    model = Model({"layers": ["acme/scale"]}, registry=registry)
    program = model.compile((1, 3, 4, 4), loss="mse", optimizer={"sgd": {"lr": 1.0}}, device="cpu")
    program.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors", registry=registry).weights is not None
    without = load_registry(entry_points=False)
    with pytest.raises(
        CheckpointError, match="layer 'acme/scale' was registered by Data in the program"
    ):
        Model.load(tmp_path / "m.safetensors", registry=without)
    entry = replace(registry.layers["acme/scale"], version=2)
    newer = replace(registry, layers={**registry.layers, "acme/scale": entry})
    with pytest.raises(CheckpointError, match="layer 'acme/scale' was version 1, is now 2"):
        Model.load(tmp_path / "m.safetensors", registry=newer)


def test_a_run_in_float16_has_a_loss_scale_and_logs_it(registry: Registry) -> None:
    records = list(Trainer(job(registry, precision="float16")).run())
    assert [r.loss_scale for r in records if isinstance(r, Epoch)] == [65536.0] * 2
    records = list(Trainer(job(registry, precision="bfloat16")).run())
    assert [r.loss_scale for r in records if isinstance(r, Epoch)] == [None] * 2


def test_gradients_that_never_fit_into_float16_are_said(registry: Registry) -> None:
    changes: dict[str, Any] = {"precision": "float16", "loss": [{"mse": {}, "weight": 1e30}]}
    message = r"steps up to \d+ no longer update .* even with the loss scale .*e-09\. In step"
    with pytest.raises(TrainingError, match=message):
        list(Trainer(job(registry, epochs=20, **changes)).run())
    message = "none of 10 steps has updated the weights: .* even with the loss scale 64, which"
    with pytest.raises(TrainingError, match=message):
        list(Trainer(job(registry, **changes)).run())


def test_what_is_reported_stands_in_the_records(registry: Registry) -> None:
    loss = [{"mse": {}}, {"l1": {}, "weight": 0.5}]
    made = job(registry, loss=loss, report=["losses", "gradient_norm"], log_every=2, epochs=1)
    groups = [record for record in Trainer(made).run() if isinstance(record, Steps)]
    assert groups
    for record in groups:
        assert list(record.reported) == ["mse", "l1", "gradient_norm"]
        total = record.reported["mse"] + 0.5 * record.reported["l1"]
        assert record.loss == pytest.approx(total, rel=1e-5)
        assert record.reported["gradient_norm"] > 0
    plain = [
        record for record in Trainer(job(registry, epochs=1)).run() if isinstance(record, Steps)
    ]
    assert all(record.reported == {} for record in plain)

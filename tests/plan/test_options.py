"""CompileOptions: each option said once, and taken by Python, training files and the command line alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import graphnet as gn
from graphnet.cli import compile_options, flag, make_options
from graphnet.errors import DescriptionError, GraphnetError, InputError
from graphnet.model import Model
from graphnet.model.plans import Plans
from graphnet.plan import Plan, split_options
from graphnet.sdk import DataSet, Pairs, Registry, hookimpl, load_registry
from graphnet.sdk.hookspecs import Register
from graphnet.training import Trainer, read_job
from tests.support.models import SEED

SHAPE = (2, 3, 8, 8)
SGD = {"sgd": {"lr": 0.1}}
VALUES: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float64",
    "precision": "bfloat16",
    "kernels": "reference",
    "saved_dtype": "bfloat16",
    "memory": "90%",
    "without": ["fusion", "block_layout"],
}
"""A value for each option that is not its default, as a training file has it."""
PYTHON_ONLY = {
    "dtype": "of parameters and inputs; --precision float64 sets it",
}
"""The options that the command line does not take, and why."""


class Noise(DataSet):
    def load(self) -> Pairs:
        images = torch.rand(2, 8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return Pairs(images[0], images[1])


class Data:
    @hookimpl
    def graphnet_datasets(self, register: Register) -> None:
        register("test/noise", Noise)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Data()], entry_points=False)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[gn.CompileOptions]:
    """The options with which plans are made, instead of the plans."""
    found: list[gn.CompileOptions] = []

    def plan(
        self: Plans, inputs: object, options: gn.CompileOptions, *rest: object, **others: object
    ) -> Plan:
        found.append(options)
        raise StopIteration

    for name in ("plan", "steps"):
        monkeypatch.setattr(Plans, name, plan)
    return found


def training_file(folder: Path, **fields: Any) -> Path:
    data = {
        "model": SEED,
        "data": {"train": {"test/noise": {}}},
        "loss": "mse",
        "optimizer": SGD,
        "epochs": 1,
        "batch_size": 2,
        **fields,
    }
    path = folder / "train.yaml"
    path.write_text(json.dumps(data))
    return path


def parsed(*arguments: str) -> gn.CompileOptions:
    """The options that a command with all of them makes of these arguments."""
    made: list[gn.CompileOptions] = []

    @click.command()
    @compile_options()
    def command(options: dict[str, object]) -> None:
        made.append(make_options(options))

    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return made[0]


def test_every_option_has_a_value_here() -> None:
    assert set(VALUES) == set(gn.CompileOptions.field_names())
    default = gn.CompileOptions()
    for name, value in VALUES.items():
        changed = gn.CompileOptions(**{name: value})
        if name != "device":
            assert getattr(changed, name) != getattr(default, name)
        assert changed.record()[name] == (sorted(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", gn.CompileOptions.field_names())
def test_compile_takes_every_option(name: str, seen: list[gn.CompileOptions]) -> None:
    stated = gn.CompileOptions(**{name: VALUES[name]})
    model = Model(SEED)
    with pytest.raises(StopIteration):
        model.compile(SHAPE, loss="mse", optimizer=SGD, **{name: VALUES[name]})
    with pytest.raises(StopIteration):
        model.compile(SHAPE, loss="mse", optimizer=SGD, options=stated)
    assert seen == [stated, stated]


@pytest.mark.parametrize("name", gn.CompileOptions.field_names())
def test_plan_takes_every_option(name: str, seen: list[gn.CompileOptions]) -> None:
    with pytest.raises(StopIteration):
        Model(SEED).plan(SHAPE, loss="mse", **{name: VALUES[name]})
    assert seen == [gn.CompileOptions(**{"device": "cpu", name: VALUES[name]})]


@pytest.mark.parametrize("name", gn.CompileOptions.field_names())
def test_a_training_file_takes_every_option(
    name: str, registry: Registry, tmp_path: Path, seen: list[gn.CompileOptions]
) -> None:
    job = read_job(training_file(tmp_path, **{name: VALUES[name]}), registry=registry)
    assert job.options == gn.CompileOptions(**{name: VALUES[name]})
    with pytest.raises(StopIteration):
        Trainer(job)
    assert seen == [replace(job.options, precision=job.options.target.precision)]  # resolved


def test_options_written_as_a_training_file_read_back_equal(
    registry: Registry, tmp_path: Path
) -> None:
    options = gn.CompileOptions(**{**VALUES, "dtype": torch.float32, "device": torch.device("cpu")})
    job = read_job(training_file(tmp_path, **options.record()), registry=registry)
    assert job.options == options
    assert split_options(job.record())[0] == options.record()


@pytest.mark.parametrize("name", gn.CompileOptions.field_names())
def test_the_command_line_takes_every_option(name: str) -> None:
    value = VALUES[name]
    if name in PYTHON_ONLY:
        with pytest.raises(AssertionError, match="No such option"):
            parsed(flag(name), "x")
        return
    match value:
        case list():
            arguments = [part for one in value for part in (flag(name), one)]
        case bool():
            arguments = [flag(name)]
        case _:
            arguments = [flag(name), value]
    assert parsed(*arguments) == gn.CompileOptions(**{name: value})


def test_options_that_are_not_given_are_the_defaults() -> None:
    assert parsed() == gn.CompileOptions()


def test_option_of_the_command_line_sets_the_field_of_the_training_file(
    registry: Registry, tmp_path: Path
) -> None:
    path = training_file(tmp_path, without=["fusion"])
    job = read_job(path, settings=["--saved-dtype=bfloat16", "--without=[]"], registry=registry)
    assert job.options == gn.CompileOptions(saved_dtype="bfloat16")
    with pytest.raises(DescriptionError, match="--saved-dtype: saved_dtype: expected 'bfloat16'"):
        read_job(path, settings=["--saved-dtype=int8"], registry=registry)


TAKERS: dict[str, Callable[..., object]] = {
    "compile": lambda **given: Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD, **given),
    "plan": lambda **given: Model(SEED).plan(SHAPE, **given),
    "tiling": lambda **given: Model(SEED).tiling(SHAPE, **given),
    "predict": lambda **given: Model(SEED).predict(torch.rand(SHAPE), **given),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_an_unknown_override_is_named_with_the_nearest(taker: str) -> None:
    with pytest.raises(InputError, match="unknown option 'kernles'. Did you mean 'kernels'"):
        TAKERS[taker](kernles="aten")
    with pytest.raises(DescriptionError, match="keep: is now called saved_dtype"):
        TAKERS[taker](keep="bfloat16")
    with pytest.raises(DescriptionError, match="the pass 'dead' is now called 'dead_code'"):
        TAKERS[taker](without=["dead"])


def test_settings_of_updates_are_overrides_of_training_alone() -> None:
    with pytest.raises(InputError, match="'clip_grad_nrm'. Did you mean 'clip_grad_norm'"):
        TAKERS["compile"](clip_grad_nrm=1.0)
    with pytest.raises(InputError, match="unknown option 'ema'"):
        TAKERS["predict"](ema=0.9)
    with pytest.raises(DescriptionError, match="ema: expected less than 1, found 2.0"):
        TAKERS["compile"](ema=2.0)


def test_overrides_take_the_place_of_fields_of_the_options(seen: list[gn.CompileOptions]) -> None:
    options = gn.CompileOptions(device="cpu", kernels="aten", precision="bfloat16")
    with pytest.raises(StopIteration):
        Model(SEED).plan(SHAPE, options=options, precision=None)
    assert seen == [gn.CompileOptions(device="cpu", kernels="aten")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtype": torch.float64, "precision": "bfloat16"}, "needs tensors of float32, got float64"),
        ({"dtype": torch.float32, "precision": "float64"}, "does not fit tensors of float32"),
        ({"precision": "half"}, "precision: 'half' does not .* Known: auto, float32, or bfloat16 or float16"),
        ({"saved_dtype": "float16"}, "saved_dtype: expected 'bfloat16', found 'float16'"),
        ({"without": ["fussion"]}, "without: unknown pass 'fussion'. Did you mean 'fusion'"),
        ({"without": "fusion"}, "without: expected a list of the names of passes, found 'fusion'"),
        ({"memory": "2 apples"}, "memory: expected an amount of memory such as '2GiB'"),
        ({"dtype": "int64"}, "dtype: expected float32, float64, .* found 'int64'"),
        ({"device": 1.5}, "device: expected auto, cpu, .* found 1.5"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        gn.CompileOptions(**given)
    with pytest.raises(DescriptionError, match=message):
        Model(SEED).plan(SHAPE, **given)


def test_all_that_is_wrong_with_a_training_file_is_said_at_its_line(
    registry: Registry, tmp_path: Path
) -> None:
    path = training_file(tmp_path)
    text = path.read_text()[1:-1]
    path.write_text("{" + text + ',\n"epochs_": 1,\n"keep": "bfloat16",\n"without": ["layout"]}')
    with pytest.raises(DescriptionError) as caught:
        read_job(path, registry=registry)
    said = str(caught.value)
    assert f"{path}:2:12: epochs_: unknown field. Did you mean 'epochs'" in said
    assert f"{path}:3:9: keep: is now called saved_dtype" in said
    assert f"{path}:4:12: without: the pass 'layout' is now called 'block_layout'" in said


def test_wrong_options_of_a_command_are_named_as_they_were_given() -> None:
    with pytest.raises(GraphnetError, match="^--saved-dtype: expected 'bfloat16', found 'int8'"):
        make_options({"saved_dtype": "int8"})


def test_the_precision_float64_is_that_of_the_tensors() -> None:
    options = gn.CompileOptions(device="cpu", precision="float64")
    program = Model(SEED).compile(SHAPE, loss="mse", optimizer=SGD, options=options)
    images: Tensor = torch.rand(SHAPE, dtype=torch.float64)
    assert program.step(images, images).dtype == torch.float64
    assert {w.dtype for w in program.weights.values()} == {torch.float64}


def test_a_prediction_is_in_the_dtype_of_its_inputs() -> None:
    images = torch.rand(SHAPE, dtype=torch.float64)
    assert Model(SEED).predict(images).dtype == torch.float64
    with pytest.raises(InputError, match="expected inputs of the dtype torch.float32, got torch.f"):
        Model(SEED).predict(images, dtype=torch.float32)


def test_equal_options_are_one_prediction_plan() -> None:
    model, images = Model(SEED), torch.rand(SHAPE)
    model.predict(images)
    model.predict(images, options=gn.CompileOptions(device=torch.device("cpu")))
    assert len(model._predictions.made) == 1


@pytest.mark.parametrize("name", [["fusion"], 3, None])
def test_what_is_no_name_of_a_pass_is_refused_in_words(name: Any) -> None:
    with pytest.raises(DescriptionError, match="without: expected the name of a pass, found"):
        gn.CompileOptions(without=[name])

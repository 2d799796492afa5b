"""The machine's numbers: the roofline by hand, what is kept on disk, and that plans do not depend on it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from graphnet.builtin import SGD
from graphnet.cli.machine import machine as command
from graphnet.errors import MachineError
from graphnet.graph import Cost, Machine
from graphnet.graph import roofline as machine
from graphnet.model import Model
from graphnet.sdk import load_registry
from graphnet.system import cache_folder
from tests.support.models import SEED

measure = importlib.import_module("graphnet.inspection.measure")


CPU = torch.device("cpu")
ROUND = Machine("round numbers", "", 1e9, {"float32": 1e10, "bfloat16": 4e10}, 1e-6)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_COPIED_BYTES", 2**20)
    monkeypatch.setattr(measure, "_ENOUGH_S", 1e-4)
    monkeypatch.setattr(measure, "_LAUNCHES", 10)


def test_least_time_is_the_longer_of_moving_and_computing() -> None:
    moving = Cost(flops=1000, bytes_read=3_000_000, bytes_written=1_000_000)
    assert ROUND.seconds(moving, torch.float32) == pytest.approx(4e-3 + 1e-6)
    computing = Cost(flops=10**9, bytes_read=4, bytes_written=4)
    assert ROUND.seconds(computing, torch.float32) == pytest.approx(0.1 + 1e-6)
    assert ROUND.seconds(computing, torch.bfloat16) == pytest.approx(0.025 + 1e-6)


def test_dtype_without_a_ceiling_has_that_of_float32() -> None:
    assert ROUND.ceiling(torch.float64) == 1e10


def test_call_computes_in_the_dtype_of_most_of_its_elements() -> None:
    model = Model(SEED, registry=load_registry(entry_points=False))
    plan = model.plan((2, 3, 8, 8), dtype=torch.float64)
    assert machine.compute_dtype(plan.steps[0].call, plan.values) == torch.float64


def test_weights_of_calls_do_not_depend_on_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(SEED, registry=load_registry(entry_points=False))
    plan = model.plan((2, 3, 8, 8), loss="mse", optimizer=SGD(lr=0.1))
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path))
    before = [machine.predicted_seconds(step.call, plan.values) for step in plan.steps]
    machine.save_machine(ROUND, machine.machine_path(CPU, cache_folder()))
    assert [machine.predicted_seconds(step.call, plan.values) for step in plan.steps] == before
    assert min(before) >= machine.STATED["cpu"].launch_s


def test_measuring_finds_positive_numbers_and_says_what_it_does(quick: None) -> None:
    said: list[str] = []
    found = measure.measure(CPU, say=said.append)
    assert set(found.flops) == {"float32", "bfloat16", "float64"}
    assert all(number > 0 for number in (found.bandwidth, found.launch_s, *found.flops.values()))
    assert found.torch_version == torch.__version__
    assert len(said) == 5


def test_measurement_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    path = machine.machine_path(CPU, tmp_path / "new")
    assert machine.load_machine(path) is None
    machine.save_machine(ROUND, path)
    assert machine.load_machine(path) == ROUND
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bandwidth": 0}', "null"])
def test_file_that_is_no_measurement_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(MachineError, match="graphnet machine"):
        machine.load_machine(path)


def test_number_that_is_zero_or_no_number_is_said(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    for wrong in (0, -1.0, "fast", None):
        path.write_text(json.dumps({**machine.machine_data(ROUND), "bandwidth": wrong}))
        with pytest.raises(MachineError):
            machine.load_machine(path)


def test_command_prints_and_keeps_what_explain_then_shows(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path))
    done = CliRunner().invoke(command, ["--json"], catch_exceptions=False)
    printed = json.loads(done.stdout)
    assert printed["bandwidth"] > 0
    assert "measuring memory bandwidth" in done.stderr
    kept = machine.load_machine(machine.machine_path(CPU, tmp_path))
    assert kept is not None
    assert machine.machine_data(kept) == printed

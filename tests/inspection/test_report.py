"""Seeing a plan: its breakdown against arithmetic by hand, the table, the JSON, and the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import graphnet as gn
from graphnet.builtin import SGD, Adam
from graphnet.cli.explain import explain as command
from graphnet.errors import WriteError
from graphnet.graph import stated_machine
from graphnet.inspection import breakdown, explain, passes, time_steps, to_data
from graphnet.inspection.report import Phase
from graphnet.inspection.table import table
from graphnet.model import Model
from graphnet.plan import Plan
from graphnet.sdk import Registry, load_registry
from tests.support.models import SEED, Acme, random_dag

CPU = stated_machine(torch.device("cpu"))
LAYERS = {"layers": [{"id": name, "acme/swish": {}} for name in "abc"]}  # none works in place


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


def training(registry: Registry, description: object, shape: tuple[int, ...]) -> Plan:
    model = Model(description, registry=registry)  # type: ignore[arg-type]
    return model.plan(shape, loss="mse", optimizer=SGD(lr=0.1))


@pytest.mark.parametrize("seed", range(12))
def test_bytes_alive_are_those_of_the_plan(registry: Registry, seed: int) -> None:
    plan = training(registry, random_dag(25, seed), (2, 4, 6, 6))
    seen = breakdown(plan, CPU)
    assert [row.alive_bytes for row in seen.rows] == list(plan.memory())
    assert seen.peak_bytes == plan.peak_bytes
    for row in seen.rows:
        alive = seen.alive(row.number)
        assert sum(one.size_bytes for one in alive) + row.work_bytes == row.alive_bytes
        assert [one.size_bytes for one in alive] == sorted(
            (o.size_bytes for o in alive), reverse=True
        )


def test_storages_live_from_their_step_to_their_last_use(registry: Registry) -> None:
    model = Model(LAYERS, registry=registry)
    plan = model.plan((1, 1, 4, 4))
    seen = breakdown(plan, CPU)
    spans = {one.name: (one.first, one.last) for one in seen.storages}
    assert spans == {"$input": (-1, 2), "a.y": (0, 1), "b.y": (1, 2), "c.y": (2, 2)}
    assert (seen.peak_bytes, seen.peak_step) == (4 * 64, 1)
    assert [row.work_bytes for row in seen.rows] == [64, 64, 64]  # swish's gate, which nobody keeps


def test_view_lives_in_the_storage_of_its_base(registry: Registry) -> None:
    halves = {"input": {"channels": 4}, "layers": [
        {"id": "r", "relu": {}}, {"id": "h", "acme/halves": {}},
        {"id": "c", "concat": {}, "inputs": ["h.second", "h.first"]}]}  # fmt: skip
    plan = Model(halves, registry=registry).plan((1, 4, 2, 2))
    seen = breakdown(plan, CPU)
    assert {one.name: one.last for one in seen.storages} == {"$input": 2, "r.y": 2, "c.y": 2}
    assert [row.alive_bytes for row in seen.rows] == [128, 128, 192]


def test_value_is_kept_for_the_steps_of_the_reverse_pass_that_read_it(registry: Registry) -> None:
    swish = {"input": {"channels": 2}, "layers": [
        {"id": "s", "acme/scale": {}}, {"id": "w", "acme/swish": {}}]}  # fmt: skip
    plan = training(registry, swish, (1, 2, 2, 2))
    seen = breakdown(plan, CPU)
    by_call = {row.call.name: row for row in seen.rows}
    swish_back = by_call["w:backward"].number
    made = {one.name: one.kept_for for one in by_call["s"].makes}
    assert made == {"s.y": (swish_back,)}  # x of swish
    assert {one.name: one.kept_for for one in by_call["w"].makes}["w.gate"] == (swish_back,)
    loss = by_call["@loss:backward"].number
    # mse writes its gradient over the prediction, so swish's gradient is read from there too
    assert {one.name: one.kept_for for one in by_call["w"].makes}["w.y"] == (loss, swish_back)


def test_totals_add_up_over_the_phases(registry: Registry) -> None:
    seen = breakdown(training(registry, SEED, (2, 3, 8, 8)), CPU)
    whole = seen.total()
    parts = [seen.total(phase) for phase in seen.phases]
    assert seen.phases == (Phase.FORWARD, Phase.REVERSE, Phase.UPDATE)
    assert whole.steps == len(seen.rows) == sum(part.steps for part in parts)
    assert whole.cost.flops == sum(part.cost.flops for part in parts)
    assert whole.seconds == pytest.approx(sum(row.seconds for row in seen.rows))


@pytest.mark.parametrize("width", [100, 120, 160])
def test_table_fits_into_the_width(registry: Registry, width: int) -> None:
    plan = training(registry, random_dag(30, 3), (2, 4, 6, 6))
    lines = table(breakdown(plan, CPU), width=max(width, 120)).splitlines()
    assert len(lines) == len(plan.steps) + 2
    assert max(map(len, lines)) <= max(width, 120)
    assert [line.split()[0] for line in lines[2:]] == [str(i) for i in range(len(plan.steps))]


def test_text_names_the_peak_and_what_is_alive_there(registry: Registry) -> None:
    plan = Model(LAYERS, registry=registry).plan((1, 1, 16, 16))
    text = explain(plan)
    assert "peak 4.0 KiB in step 1 (b); alive then:" in text
    assert "1.0 KiB  temporary memory of this step" in text
    alive = text.partition("alive then:\n")[2].splitlines()[:3]
    assert alive[0].split(maxsplit=3)[:3] == ["1.0", "KiB", "$input"]
    assert "(made in step 0, freed after step 1)" in text
    assert "by stated numbers" in text
    assert gn.explain(plan) == text


def test_blocks_are_shown_where_there_are_any(registry: Registry) -> None:
    model = Model(SEED, registry=registry)
    blocked = gn.explain(model.plan((2, 3, 8, 8), kernels="auto"))
    plain = gn.explain(model.plan((2, 3, 8, 8), kernels="reference"))
    assert "  2x2 2x2  " in blocked
    assert "layout" not in plain.splitlines()[0]


def test_data_holds_every_step_and_is_json(registry: Registry) -> None:
    plan = training(registry, SEED, (2, 3, 8, 8))
    data = to_data(breakdown(plan, CPU))
    assert json.loads(json.dumps(data))["steps"] == data["steps"]
    assert [step["call"] for step in data["steps"]] == [step.call.name for step in plan.steps]
    assert data["peak"]["bytes"] == plan.peak_bytes
    assert data["totals"]["total"]["steps"] == len(plan.steps)
    assert [change["name"] for change in data["passes"]] == [c.name for c in plan.changes]


def test_every_step_is_timed(registry: Registry) -> None:
    plan = training(registry, random_dag(12, 2), (2, 4, 6, 6))
    timing = time_steps(plan, rounds=3, warm_up=1)
    assert len(timing.steps) == len(plan.steps)
    assert all(elapsed > 0 for elapsed in timing.steps)
    assert timing.whole > 0
    text = explain(plan, timing=timing)
    assert "measured" in text.splitlines()[0]
    assert "medians of 3 rounds" in text


def test_passes_say_what_they_changed_and_which_are_off(registry: Registry) -> None:
    model = Model(SEED, registry=registry)
    plan = model.plan((2, 3, 8, 8), loss="mse", optimizer=Adam(), without=("block_layout",))
    text = passes(plan.changes)
    off = next(line for line in text.splitlines() if line.startswith("block_layout"))
    assert off.split()[1:3] == ["switched", "off"]
    assert "new: @loss" in text
    narrow = passes(plan.changes, width=100).splitlines()
    assert max(len(line) for line in narrow) <= 100
    assert any(line.rstrip().endswith(" more") for line in narrow)
    update = next(line for line in text.splitlines() if line.startswith("update"))
    before, _, after = update.split()[1:4]
    assert int(after) == int(before) + 8  # one for each parameter


# -- the command ------------------------------------------------------------------------------------


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.yaml"
    path.write_text("input: {channels: 3}\nlayers:\n- {id: a, relu: {}}\n- {id: b, sigmoid: {}}\n")
    return path


def said(*arguments: object) -> str:
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(command, given, catch_exceptions=False).stdout


def test_command_prints_json_with_measured_times(model_file: Path) -> None:
    data: dict[str, Any] = json.loads(said(model_file, "--input", "1x3x4x4", "--json", "--measure"))
    assert [step["node"] for step in data["steps"]] == ["a", "b"]
    assert all(step["measured_s"] > 0 for step in data["steps"])
    assert data["measured"]["whole"] > 0


def test_command_lists_passes_also_as_json(model_file: Path) -> None:
    listed = json.loads(said(model_file, "--input", "1x3x4x4", "--passes", "--json"))
    assert "inference" in [change["name"] for change in listed]
    assert said(model_file, "--input", "1x3x4x4", "--passes").startswith("pass")


def test_command_writes_source_that_compiles(model_file: Path) -> None:
    text = said(model_file, "--input", "1x3x4x4", "--source")
    compile(text, "<plan>", "exec")
    assert "def step(x):" in text


def test_command_writes_a_page_whole_or_not_at_all(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.html"
    said(model_file, "--input", "1x3x4x4", "--html", path)
    assert "<title>model: inference on 1x3x4x4, float32, eager executor</title>" in path.read_text()
    missing = tmp_path / "no folder" / "plan.html"
    with pytest.raises(WriteError, match="no folder/plan.html"):
        said(model_file, "--input", "1x3x4x4", "--html", missing)
    assert not missing.parent.exists()


def test_explain_takes_the_options_of_train(model_file: Path) -> None:
    text = said(
        model_file, "--input", "1x3x4x4", "--training", "--precision", "float32", "--without", "block_layout"
    )  # fmt: skip
    assert "@loss" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "--passes"], "give one of them"),
        (
            ["--saved-dtype", "bfloat16", "--loss", "mse"],
            "--loss, --saved-dtype: give this together with --training",
        ),
        (["--source", "--json"], "--json: --source prints Python"),
        (["--passes", "--measure"], "--measure: it times the steps of the table"),
        (["--without", "block_layuot"], "Did you mean 'block_layout'?"),
        (["--precision", "float8"], "float8"),
    ],
)
def test_explain_names_options_that_exclude_each_other(
    model_file: Path, arguments: list[str], message: str
) -> None:
    from graphnet.errors import GraphnetError

    given = [str(model_file), "--input", "1x3x4x4", *arguments]
    with pytest.raises(GraphnetError, match=message.replace("?", r"\?")):
        CliRunner().invoke(command, given, catch_exceptions=False)


def test_page_of_the_documentation_is_true(registry: Registry) -> None:
    text = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["data"]["peak"]["bytes"] == scope["plan"].peak_bytes
    columns = re.findall(r"^\| ([a-zA-Z, ]+) \|", text, flags=re.M)[1:]
    named = {name.strip() for column in columns for name in column.split(",")} | {"step"}
    plan = training(registry, SEED, (2, 3, 8, 8))
    shown = table(breakdown(plan, CPU), timing=time_steps(plan, rounds=1, warm_up=0), width=200)
    assert set(re.split(r"\s{2,}", shown.splitlines()[0])) == named
    options = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text)) <= options

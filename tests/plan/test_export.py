"""The plan as a file: it runs in a process of its own and computes what the eager executor computes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import graphnet as gn
from graphnet.builtin import SGD, Adam
from graphnet.errors import SourceError
from graphnet.executors import prepare
from graphnet.inspection.step_timing import random_arguments
from graphnet.model import Model
from graphnet.plan import Plan
from graphnet.sdk import Definition, Layer, Optimizer, Register, Registry, hookimpl, load_registry
from tests.support.models import SEED, Acme, random_dag

ROOT = Path(__file__).parents[2]
_AFTER = """
from safetensors.torch import load_file, save_file
# clones: what is read from a file lies at any address, and vector code rounds by alignment
given = {name: tensor.clone() for name, tensor in load_file("given.safetensors").items()}
with torch.no_grad():
    outputs = step(*(given[name] for name in ARGUMENTS))
found = {f"output {i}": output for i, output in enumerate(outputs)}
save_file({k: v.clone().contiguous() for k, v in {**given, **found}.items()}, "found.safetensors")
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


def run_file(text: str, folder: Path, *, after: str = "") -> str:
    path = folder / "plan.py"
    path.write_text(text + after)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=folder, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here(text: str, folder: Path, *, after: str = "") -> None:
    """The same in this process."""
    with chdir(folder):
        exec(text + after, {"__name__": "plan"})


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def compare(plan: Plan, folder: Path, *, execute: Callable[..., object]) -> None:
    """The file's outputs and updated slots equal the eager executor's, to the bit."""
    values = contiguous(random_arguments(plan, seed=1))
    if "@lr" in values:
        values["@lr"].fill_(0.1)
    scope: dict[str, object] = {"__name__": "plan"}
    exec(gn.source(plan), scope)
    stated = scope["ARGUMENTS"]
    assert isinstance(stated, dict)
    names = dict(zip(stated, plan.arguments, strict=True))
    save_file({name: values[value] for name, value in names.items()}, folder / "given.safetensors")
    execute(gn.source(plan), folder, after=_AFTER)
    found = load_file(folder / "found.safetensors")
    with torch.no_grad():
        outputs = prepare(plan, "eager")(*(values[name] for name in plan.arguments))
    for i, output in enumerate(outputs):
        assert torch.equal(found[f"output {i}"], output)
    for name, value in names.items():
        assert torch.equal(found[name], values[value]), value
    assert len(outputs) > 0


@pytest.mark.parametrize(
    ("optimizer", "execute"),
    [
        (SGD(lr=0.1), run_here),
        pytest.param(Adam(weight_decay=0.1), run_file, marks=pytest.mark.slow),
    ],
    ids=["sgd", "adam"],
)
def test_training_file_computes_what_eager_computes(
    registry: Registry, tmp_path: Path, optimizer: Optimizer, execute: Callable[..., object]
) -> None:
    model = Model(SEED, registry=registry)
    compare(model.plan((2, 3, 8, 8), loss="mse", optimizer=optimizer), tmp_path, execute=execute)


@pytest.mark.parametrize("seed", [1, 4])
def test_file_of_a_random_dag_with_plugins_computes_what_eager_computes(
    registry: Registry, tmp_path: Path, seed: int
) -> None:
    model = Model(random_dag(14, seed), registry=registry)
    compare(model.plan((2, 4, 6, 6), loss="mse", optimizer=SGD(lr=0.1)), tmp_path, execute=run_here)


@pytest.mark.slow
def test_inference_file_runs_by_itself_and_prints_its_outputs(
    registry: Registry, tmp_path: Path
) -> None:
    plan = Model(SEED, registry=registry).plan((2, 3, 8, 8))
    assert run_file(gn.source(plan), tmp_path).startswith("(2, 3, 8, 8) torch.float32 ")
    compare(plan, tmp_path, execute=run_here)


def test_file_imports_graphnet_and_torch_and_names_no_registry(registry: Registry) -> None:
    text = gn.source(Model(SEED, registry=registry).plan((2, 3, 8, 8)))
    imported = [
        line.split()[1] for line in text.splitlines() if line.startswith(("import", "from"))
    ]
    assert imported[0] == "torch"
    assert all(name.startswith("graphnet.") for name in imported[1:])
    assert max(len(line) for line in text.splitlines() if line.startswith("def step(")) <= 100


def test_parameters_of_fused_layers_are_named_after_the_kernel(registry: Registry) -> None:
    plan = Model(SEED, registry=registry).plan((2, 3, 8, 8), loss="mse", optimizer=SGD(lr=0.1))
    assert "sgd" not in gn.source(plan).partition("def step(")[2].partition("):")[0]


class Local(Layer):
    """x, through a field that no file can hold."""

    thing: object

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


class Inside:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        class Hidden(Layer):
            """x."""

            def forward(self, x: Tensor) -> Tensor:
                return x * 1.0

        register("acme/hidden", Hidden)


def test_class_that_no_import_reaches_is_said() -> None:
    registry = load_registry(plugins=[Inside()], entry_points=False)
    plan = Model({"layers": ["acme/hidden"]}, registry=registry).plan((1, 1, 2, 2))
    with pytest.raises(SourceError, match="Hidden cannot be imported.*top of a module"):
        gn.source(plan)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("-inf"), 'float("-inf")'),
        ((1,), "(1,)"),
        ((), "()"),
        ('a"b', "'a\"b'"),
        ("a", '"a"'),
        (torch.bfloat16, "torch.bfloat16"),
        (frozenset({"b", "a"}), 'frozenset({"a", "b"})'),
        (frozenset(), "frozenset()"),
        ({"k": [1.5, None]}, '{"k": [1.5, None]}'),
    ],
)
def test_constants_are_written_so_that_python_reads_them_back(
    registry: Registry, value: object, written: str
) -> None:
    from graphnet.plan.export import _Writer

    writer = _Writer(Model(SEED, registry=registry).plan((2, 3, 8, 8)))
    assert writer.literal(value) == written
    assert eval(written, {"torch": torch}) == value


def test_field_that_cannot_be_written_is_said(registry: Registry) -> None:
    from graphnet.plan.export import _Writer

    writer = _Writer(Model(SEED, registry=registry).plan((2, 3, 8, 8)))
    layer: Definition = Local(thing=object())
    with pytest.raises(SourceError, match="cannot be written in a file"):
        writer.literal(layer)

"""The code of layers is copied with all that it reads, under names that do not meet."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from graphnet.builtin import SGD
from graphnet.errors import SourceError
from graphnet.model import Model
from graphnet.plan import standalone
from graphnet.sdk import load_registry

ONE = '''
"""One module."""
from __future__ import annotations

import functools
import math as arithmetic
from dataclasses import dataclass

import torch

import graphnet as gn
from two_parts import helpers
from two_parts.helpers import shifted as moved

_FACTOR: float = arithmetic.sqrt(4.0)
_TABLE = {name: index for index, name in enumerate(("a", "b"), 1)}


@dataclass(frozen=True)
class Pair:
    """Two numbers.

    >>> Pair(1, 2).total
    3
    """

    left: float
    right: float = _FACTOR

    @property
    def total(self) -> float:
        """Their sum."""
        return self.left + self.right


@functools.lru_cache
def _scale(number: float) -> float:
    """A number of this module, and not that of the other."""
    def inside(index: int) -> float:
        return number * index

    return sum(inside(index) for index in _TABLE.values())  # 3 numbers


class Base(gn.Layer):
    """The base."""

    offset: float = 1.0
    unused: float = 7.0
    limit = 10.0

    def forward(self, x):
        return x + self.offset

    def backward(self, grad_y):
        return grad_y

    def also_unused(self):
        return nothing_of_this_name


class One(Base):
    """x + offset, then what the helpers do."""

    def forward(self, x):
        y = super().forward(x)
        if x.ndim > self.limit:
            raise helpers.TooMany(f"{x.ndim} axes, at most {self.limit}")
        match self.offset:
            case 1.0:
                y = y * _scale(Pair(1.0).total)
            case other:
                y = y * other
        return moved(helpers.scaled(y))


class Two(gn.Layer):
    """x, scaled by the other module's function of the same name."""

    def forward(self, x):
        return helpers._scale(x)

    def backward(self, grad_y):
        return grad_y


@gn.hookimpl
def graphnet_layers(register):
    register("acme/one", One)
    register("acme/two", Two)
'''
HELPERS = '''
"""Helpers."""
import torch


class TooMany(ValueError):
    """Too many axes."""


def _scale(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5


def scaled(x: "torch.Tensor") -> "torch.Tensor":
    return _scale(x)


def shifted(x, *, by: float = 1.0):
    scale = 2.0
    return x - by * scale
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = tmp_path / "two_parts"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text(ONE)
    (folder / "helpers.py").write_text(HELPERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("two_parts.one")
    for name in [name for name in sys.modules if name.partition(".")[0] == "two_parts"]:
        del sys.modules[name]


def written(package: ModuleType, layers: list[Any]) -> tuple[str, Any]:
    """The source of a chain of layers, and its function `step`."""
    model = Model({"layers": layers}, registry=load_registry(plugins=[package], entry_points=False))
    plan = model.plan((1, 3), kernels="reference", without=("in_place",))
    parts = standalone(plan, packages={"two_parts"}, imports=[("torch", "")])
    text = f"from __future__ import annotations\n{parts.imports}\n{parts.step}\n{parts.layers}"
    module = ModuleType("written_alone")
    sys.modules["written_alone"] = module
    try:
        exec(compile(text, "written_alone.py", "exec"), vars(module))
    finally:
        del sys.modules["written_alone"]
    return text, vars(module)["step"]


def test_functions_classes_and_constants_of_a_layer_are_copied(package: ModuleType) -> None:
    text, step = written(package, ["acme/one", {"acme/one": {"offset": 3.0}}])
    # (x + 1) * 3 * (1 + 2) / 2 - 2, then (y + 3) * 3 / 2 - 2
    first = (torch.tensor([0.0, 1.0]) + 1) * 9 / 2 - 2
    assert torch.equal(step(torch.tensor([0.0, 1.0]))[0], (first + 3) * 3 / 2 - 2)
    assert "One(offset=3.0)" in text
    assert "import math" in text


def test_two_functions_of_one_name_in_two_modules_stay_two(package: ModuleType) -> None:
    text, step = written(package, ["acme/two", "acme/one"])
    assert torch.equal(step(torch.tensor([2.0]))[0], torch.tensor([(2.0 * 0.5 + 1) * 9 / 2 - 2]))
    assert text.count("def _scale(") == 1
    assert text.count("def _scale_2(") == 1


def test_only_what_the_forward_pass_reads_is_copied(package: ModuleType) -> None:
    text, _ = written(package, ["acme/one"])
    for absent in (
        "unused",
        "backward",
        "nothing_of_this_name",
        ">>>",
        "import graphnet",
        "hookimpl",
    ):
        assert absent not in text
    assert "# 3 numbers" in text  # comments are copied
    assert "limit = 10.0" in text


def test_error_of_a_layer_is_raised_in_the_copy_too(package: ModuleType) -> None:
    _, step = written(package, ["acme/one"])
    with pytest.raises(ValueError, match=r"11 axes, at most 10.0"):
        step(torch.zeros((1,) * 11))


def test_module_that_is_not_among_the_packages_is_refused(package: ModuleType) -> None:
    model = Model(
        {"layers": ["acme/two"]}, registry=load_registry(plugins=[package], entry_points=False)
    )
    plan = model.plan((1, 3), kernels="reference")
    with pytest.raises(
        SourceError, match=r"node 'two_1' \(acme/two\): its class Two is of two_parts"
    ):
        standalone(plan, packages=())


def test_plan_of_a_training_or_with_work_ahead_is_refused() -> None:
    layers: list[Any] = [{"conv2d": {"out_channels": 1, "kernel_size": 1}}, "batch_norm2d"]
    model = Model({"input": {"channels": 1}, "layers": layers})
    with pytest.raises(SourceError, match=r"node .*: draws random numbers, or changes weights"):
        standalone(model.plan((1, 1, 2, 2), loss="mse", optimizer=SGD(lr=0.1)), packages=())
    with pytest.raises(SourceError, match="has inputs and weights only, found"):
        standalone(model.plan((1, 1, 2, 2)), packages=())


def test_long_statements_of_step_are_put_in_several_lines_and_stay_the_same(
    package: ModuleType,
) -> None:
    count = 12
    nodes = [{"id": f"n{i}", "acme/two": {}, "inputs": ["$input"]} for i in range(count)]
    last = {"concat": {}, "inputs": [f"n{i}" for i in range(count)]}
    text, step = written(package, [*nodes, last])
    lines = text.partition("    return (concat_1_y,)")[0].splitlines()
    assert [line for line in lines if len(line) > 100 and "# " not in line] == []
    assert any(line.startswith(" " * 20) for line in lines)
    assert step(torch.ones(2, 3))[0].tolist() == [[0.5] * 3 * count] * 2

"""The mutator: it changes sources in one place, and the kit catches what it makes of ReLU."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.equal_mutants import EQUAL
from tests.support.mutants import chosen, sources
from tests.support.mutations import mutants_of

SOURCE = """
class Gain(Layer):
    pointwise: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2:
            raise GraphError(f"expected {2 + 1}")
        return x * 2

    def backward(self, grad_y: Tensor, wanted: frozenset[str]) -> Tensor:
        return (grad_y * 2).sum((0, 1)) if "x" in wanted else None
"""


def test_each_mutant_is_one_change_of_what_is_computed() -> None:
    found = list(mutants_of("graphnet.builtin.gain", SOURCE))
    changes = {(one.kind, one.diff[1]) for one in found}
    assert ("operator", "return x / 2") in changes
    assert ("constant", "return x * 3") in changes
    assert ("dropped term", "return x") in changes
    assert ("sign", "return -(x * 2)") in changes
    assert ("aliasing", "x.mul_(1.0)") in changes
    assert any(kind == "broadcast sum" and "sum((0,))" in text for kind, text in changes)
    assert any(kind == "wanted" and "not 'x' in wanted" in text for kind, text in changes)
    assert not any("raise" in text or "pointwise" in text for _, text in changes)  # no computation
    assert len({one.source for one in found}) == len(found)


def test_methods_in_place_may_write_to_what_the_base_class_overwrites() -> None:
    source = """
class Base(Kernel):
    overwrites: ClassVar[dict[str, str]] = {"grad_x": "grad_y"}

class Gain(Base):
    def backward_(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y.mul_(y)
"""
    written = {
        m.diff[1] for m in mutants_of("graphnet.builtin.gain", source) if m.kind == "aliasing"
    }
    assert written == {"y.mul_(1.0)"}


def test_each_kind_has_its_share_of_what_is_drawn() -> None:
    found = list(mutants_of("graphnet.builtin.gain", SOURCE))
    kinds = {one.kind for one in found}
    drawn = chosen(found, len(kinds), seed=1)
    assert {one.kind for one in drawn} == kinds
    assert drawn == chosen(found, len(kinds), seed=1)


def test_what_is_set_aside_still_stands_in_the_source() -> None:
    lines = {}
    for module, text in sources().items():
        for top in ast.parse(text).body:
            for node in (top, *(top.body if isinstance(top, ast.ClassDef) else ())):
                place = ".".join(dict.fromkeys(getattr(one, "name", "") for one in (top, node)))
                lines[f"{module.removeprefix('graphnet.builtin.')}:{place}"] = ast.unparse(node)
    for name, reason in EQUAL.items():
        place, change = name.split(": ", 1)
        for before in change.split(" -> ")[0].split(" / "):
            assert before in lines.get(place, ""), name
        assert reason.strip()


@pytest.mark.slow
def test_every_mutant_of_relu_is_caught(tmp_path: Path) -> None:
    output = tmp_path / "mutants.json"
    command = [sys.executable, "-m", "tests.support.mutants", "--only", "activation:ReLU."]
    done = subprocess.run(
        [*command, "--output", str(output), "--jobs", "1", "--most", "12", "--least", "100"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads(output.read_text())
    assert len(outcomes) == 12
    assert {one["how"] for one in outcomes} <= {"kit", "samples", ""}
    assert "gradient_numerical" in done.stdout

"""The work of compiling grows with the number of nodes, not with its square: Python's calls are counted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import graphnet as gn

CONV2D = "conv2d: {out_channels: 2, kernel_size: 3, padding: 1}"
PARTS = {
    "a chain": ["relu: {}, inputs: [last]"],
    "sums with one value": ["add: {}, inputs: [last, first]"],
    "convolutions and activations": [f"{CONV2D}, inputs: [last]", "relu: {}, inputs: [last]"],
}


def model_of(part: list[str], length: int, path: Path) -> gn.Model:
    """A convolution, then `length` nodes, each of which reads the last one."""
    lines = ["name: long", "input: {channels: 2}", "layers:", f"  - {{id: first, {CONV2D}}}"]
    last = "first"
    for index in range(length):
        node = part[index % len(part)].replace("[last", f"[{last}")
        last = f"node_{index}"
        lines.append(f"  - {{id: {last}, {node}}}")
    path.write_text("\n".join(lines))
    return gn.load(path)


def calls_of_compile(model: gn.Model) -> int:
    """How many functions of Python the compilation for a training calls."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        model.compile((1, 2, 8, 8), loss="mse", optimizer=gn.Adam(lr=0.1), device="cpu")
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_twice_the_nodes_take_twice_the_calls(part: list[str], tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    calls_of_compile(model_of(part, 4, path))  # modules are imported
    few, more, most = (calls_of_compile(model_of(part, length, path)) for length in (60, 120, 240))
    assert most - more < 2.2 * (more - few)

"""Run exported networks where no graphnet can be imported: python -I alone.py FOLDER PACKAGE...

It prints as JSON, for each package, whether all outputs are equal to the bit, and the largest error in parts
of the largest value, or of 1 if all are smaller.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch

ABSENT = ("graphnet", "graphnet_cpu", "graphnet_onnx", "safetensors", "pydantic", "pluggy", "click")


class Absent:
    """Refuses what graphnet installs with itself."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ImportError for these names; others are found as always."""
        if name.partition(".")[0] in ABSENT:
            raise ImportError(f"{name} is not on this machine")


def main(folder: Path, packages: list[str]) -> dict[str, tuple[bool, float]]:
    """Run each network on its inputs, and compare with its outputs."""
    sys.meta_path.insert(0, Absent())  # type: ignore[arg-type]
    sys.path.insert(0, str(folder))
    return {package: compare(folder, package) for package in packages}


def compare(folder: Path, package: str) -> tuple[bool, float]:
    """Whether the outputs are equal to the bit, and the largest error; infinite if shapes differ."""
    network = importlib.import_module(package).Network()
    same, worst = True, 0.0
    for inputs, expected in torch.load(folder / f"{package}.pt", weights_only=True):
        copies = [x.clone() for x in inputs]
        found = network.predict(*inputs)
        found = found if isinstance(found, tuple) else (found,)
        assert all(map(torch.equal, inputs, copies)), f"{package} writes to its inputs"
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            if one.shape != other.shape or one.dtype != other.dtype:
                return False, float("inf")
            same &= torch.equal(one, other)
            if other.numel():
                one, other = one.double(), other.double()
                scale = max(1.0, float(other.abs().max()))
                worst = max(worst, float((one - other).abs().max()) / scale)
    return same, worst


if __name__ == "__main__":
    printed = main(Path(sys.argv[1]), sys.argv[2:])
    assert not [name for name in sys.modules if name.partition(".")[0] in ABSENT]
    print(json.dumps(printed))

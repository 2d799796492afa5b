"""How equal a training is in 1, 2 and 4 processes: `python -m benchmarks.equal_bits [--steps 200]`.

For three networks with group norms, in float32 and float64, it trains on the same batches in one process, in
two and in four, each with one thread, with and without `deterministic`. It compares the losses of all steps,
the weights, their averages, and the states of the optimizer, and prints whether all bits are equal, or else
the largest relative difference of a tensor.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import graphnet as gn
from tests.support.processes import in_processes

_BATCH, _SIZE = 8, 32
_NORM = "{group_norm: {num_groups: 4}}"
_EXAMPLES = Path(__file__).parents[1] / "examples" / "denoisers"
CASES: Mapping[str, tuple[str, Mapping[str, str], Mapping[str, Any]]] = {
    "seed, SGD": ("seed.yaml", {}, {"optimizer": {"sgd": {"lr": 0.5}}}),
    "U-Net, Adam, EMA": (
        "unet.yaml",
        {"      - relu\n": f"      - {_NORM}\n      - relu\n"},
        {"optimizer": {"adam": {"lr": 1e-3}}, "ema": 0.99},
    ),
    "DnCNN, Adam, accumulate, clip": (
        "dncnn.yaml",
        {"      - batch_norm2d\n": f"      - {_NORM}\n"},
        {"optimizer": {"adam": {"lr": 1e-3}}, "accumulate": 2, "clip_grad_norm": 0.1},
    ),
}


def train(
    file: Path, settings: Mapping[str, Any], dtype: str, exact: bool, steps: int
) -> dict[str, Tensor]:
    """Train in this process, one of all; returns the losses and all that the training has changed."""
    joined = gn.join_processes()
    program = gn.Model.load(file).compile(
        (_BATCH // joined.count, 3, _SIZE, _SIZE),
        loss="mse",
        device="cpu",
        precision=dtype,
        processes=joined,
        deterministic=exact,
        **settings,
    )
    draw = torch.Generator().manual_seed(0)
    part, losses = joined.part(_BATCH), []
    for _ in range(steps):
        images = torch.rand(2, _BATCH, 3, _SIZE, _SIZE, generator=draw)
        noisy, target = images.to(getattr(torch, dtype))
        losses.append(program.step(noisy[part], target[part]).clone())
    return {"losses": torch.stack(losses), **program.model_weights, **program.training_state}


def compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest relative difference of a tensor; 0 if all bits are equal."""
    if all(torch.equal(found[name], tensor) for name, tensor in expected.items()):
        return 0.0
    return max(
        float((found[name] - tensor).double().norm() / tensor.double().norm().clamp_min(1e-30))
        for name, tensor in expected.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    table = Table("training", "dtype", "2 processes", "4 processes", title=f"{steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, changes, settings) in CASES.items():
            text = (_EXAMPLES / file).read_text()
            for old, new in changes.items():
                text = text.replace(old, new)
            (changed := Path(folder, file)).write_text(text)
            for dtype, exact in itertools.product(("float32", "float64"), (True, False)):
                row = name + (", deterministic" if exact else "")
                cells = _cells(changed, settings, dtype, exact, steps)
                table.add_row(row, dtype, *cells)
                print(row, dtype, *cells, file=sys.stderr, flush=True)
    Console(markup=False).print(table)
    return 0


def _cells(*given: Any) -> list[str]:
    """How 2 and 4 processes compare with one."""
    (alone,) = in_processes(1, train, *given)
    cells = []
    for count in (2, 4):
        worst = max(compare(one, alone) for one in in_processes(count, train, *given))
        cells.append(f"{worst:.1e}" if worst else "equal bits")
    return cells


if __name__ == "__main__":
    sys.exit(main())

"""How equal a training is in 1, 2 and 4 processes: `python -m benchmarks.equal_bits [--steps 200]`.

For three networks with group norms, in float32 and float64, it trains on the same batches in one process, in
two and in four, each with one thread, with and without `deterministic`. It compares the losses of all steps,
the weights, their averages, and the states of the optimizer, and prints whether all bits are equal, or else
the largest relative difference of a tensor, and the bytes of the optimizer's states in a process, which
processes divide with `--shard`.
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
from graphnet.passes import EMA
from tests.support.processes import in_processes

_BATCH, _SIZE = 8, 32
_STATES = "bytes of states"
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
    states = [
        tensor.untyped_storage().nbytes()
        for name, tensor in program.optimizer_state.items()
        if program.plan.values[name].role != EMA
    ]
    return {
        _STATES: torch.tensor(sum(states)),
        "losses": torch.stack(losses),
        **program.model_weights,
        **program.training_state,
    }


def compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest relative difference of a tensor; 0 if all bits are equal.

    Of divided states, only the first process has the whole ones.
    """
    names = [name for name in found if name != _STATES]
    if all(torch.equal(found[name], expected[name]) for name in names):
        return 0.0
    return max(
        float(
            (found[name] - expected[name]).double().norm()
            / expected[name].double().norm().clamp_min(1e-30)
        )
        for name in names
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--shard", action="store_true", help="divide the optimizer's states")
    parser.add_argument("--rows", default="", help="only trainings whose name has this text")
    options = parser.parse_args()
    steps, more = options.steps, {"shard": "optimizer"} if options.shard else {}
    counts = ("1 process", "2 processes", "4 processes")
    table = Table("training", "dtype", *counts, title=f"{steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: case for name, case in CASES.items() if options.rows in name}
        for name, (file, changes, settings) in rows.items():
            text = (_EXAMPLES / file).read_text()
            for old, new in changes.items():
                text = text.replace(old, new)
            (changed := Path(folder, file)).write_text(text)
            for dtype, exact in itertools.product(("float32", "float64"), (True, False)):
                row = name + (", deterministic" if exact else "")
                cells = _cells(changed, {**settings, **more}, dtype, exact, steps)
                table.add_row(row, dtype, *cells)
                print(row, dtype, *cells, file=sys.stderr, flush=True)
    Console(markup=False).print(table)
    return 0


def _cells(*given: Any) -> list[str]:
    """The bytes of states in one process, and how 2 and 4 processes compare with it."""
    (alone,) = in_processes(1, train, *given)
    cells = [_bytes(alone)]
    for count in (2, 4):
        every = in_processes(count, train, *given)
        worst = max(compare(one, alone) for one in every)
        cells.append(f"{f'{worst:.1e}' if worst else 'equal bits'}, {_bytes(every[0])}")
    return cells


def _bytes(found: Mapping[str, Tensor]) -> str:
    return f"{int(found[_STATES]) / 1e6:.3f} MB of states"


if __name__ == "__main__":
    sys.exit(main())

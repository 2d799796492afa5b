"""The peak that a plan predicts, against the allocator's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphnet as gn
from benchmarks import memory

FOLDER = Path(__file__).parent.parent / "examples" / "denoisers"


@pytest.mark.parametrize(
    ("name", "shape"),
    [("seed", (64, 3, 64, 64)), ("unet", (8, 3, 64, 64)), ("nafnet", (4, 3, 64, 64))],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_step_takes_as_much_memory_as_predicted(
    name: str, shape: tuple[int, ...], precision: str, device: torch.device
) -> None:
    on_cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_cuda else memory.alive_bytes()
    program = gn.load(FOLDER / f"{name}.yaml").compile(
        shape, loss="mse", optimizer=gn.SGD(lr=0.01), device=device, precision=precision
    )
    x = torch.rand(shape, device=device)
    images = program.pack(x, x)
    del x
    peak = memory.peak_bytes(lambda: program.step_packed(*images), device) - before
    assert abs(program.plan.peak_bytes - peak) <= 0.05 * peak

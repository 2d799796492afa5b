"""The peak that a plan predicts, against the allocator's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import graphnet as gn
from benchmarks import memory

FOLDER = Path(__file__).parents[2] / "examples" / "denoisers"
# cuBLAS and cuDNN take room for their own work from torch's allocator, as much as they like.
WORKSPACE_BYTES = 128 * 2**20
LARGER = 4  # times the batch, on a GPU, so that this is not most of it


@pytest.mark.parametrize(
    ("name", "shape"),
    [("seed", (64, 3, 64, 64)), ("unet", (8, 3, 64, 64)), ("nafnet", (4, 3, 64, 64))],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_step_takes_as_much_memory_as_predicted(
    name: str, shape: tuple[int, ...], precision: str, device: torch.device
) -> None:
    on_cuda = device.type == "cuda"
    shape = (LARGER * shape[0] if on_cuda else shape[0], *shape[1:])
    before = torch.cuda.memory_allocated(device) if on_cuda else memory.alive_bytes()
    program = gn.load(FOLDER / f"{name}.yaml").compile(
        shape, loss="mse", optimizer=gn.SGD(lr=0.01), device=device, precision=precision
    )
    x = torch.rand(shape, device=device)
    images = program.pack(x, x)
    del x
    peak = memory.peak_bytes(lambda: program.step_packed(*images), device) - before
    predicted = program.plan.peak_bytes
    assert 0.95 * peak - (WORKSPACE_BYTES if on_cuda else 0) <= predicted <= 1.05 * peak

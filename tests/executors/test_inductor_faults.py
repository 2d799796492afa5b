"""Models for which Inductor makes wrong code, which graphnet avoids: each is computed as by the reference."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from graphnet.sdk import default_registry
from tests.support.random_graphs import OPTIMIZERS, Trial, failure

CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
HEADS = {"reshape": {"shape": [2, 2, 4]}}
MODELS: dict[str, tuple[tuple[int, ...], list[dict[str, Any]]]] = {
    "a maximum over 36 pixels of a transposed image": (
        (2, 3, 14, 17),
        [
            CONV,
            {"permute": {"dims": [0, 1, 3, 2]}},
            {"max_pool2d": {"kernel_size": 6, "stride": 2}},
        ],
    ),
    "a mean over windows that reach beyond the image": (
        (2, 3, 6, 6),
        [CONV, {"avg_pool2d": {"kernel_size": 3, "stride": 2, "ceil_mode": True}}],
    ),
    "products around a softmax over another axis": (
        (3, 3, 3, 3),
        [
            {"id": "q", "linear": {"out_features": 3}},
            {"id": "k", "permute": {"dims": [0, 1, 3, 2]}, "inputs": ["$image"]},
            {"matmul": {}, "inputs": ["q", "k"]},
            {"rescale": {"factor": 0.4}},
            {"id": "w", "softmax": {"dim": 1}},
            {"matmul": {}, "inputs": ["w", "q"]},
        ],
    ),
    "attention with the axes of its keys in another order": (
        (2, 2, 8),
        [
            {"id": "q0", "linear": {"out_features": 8}},
            HEADS,
            {"id": "q", "permute": {"dims": [0, 2, 1, 3]}},
            {"id": "k0", **HEADS, "inputs": ["q0"]},
            {"id": "k", "permute": {"dims": [0, 2, 3, 1]}},
            {"matmul": {}, "inputs": ["q", "k"]},
            {"rescale": {"factor": 0.4}},
            {"id": "w", "softmax": {"dim": -1}},
            {"matmul": {}, "inputs": ["w", "q"]},
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_model_computes_what_the_reference_does(name: str) -> None:
    shape, layers = MODELS[name]
    nodes = [{"id": f"node_{number}", **layer} for number, layer in enumerate(layers)]
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    trial = Trial(
        nodes=tuple(nodes),
        inputs={"image": image},
        losses={str(nodes[-1]["id"]): "mse"},
        settings={"optimizer": OPTIMIZERS[0]},
        options={"executor": "inductor", "dtype": "float32"},
    )
    assert failure(trial, default_registry(), tolerance=1e-4, rounding=1e-7) == ""

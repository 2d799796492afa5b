"""Nodes that share a batch norm move its statistics one after the other, as a torch module called twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphnet as gn
from graphnet.model import Model
from tests.support.oracle import random_tensor

SHAPE = (4, 3, 8, 8)
NETWORK: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 3, "kernel_size": 1}, "id": "conv"},
        {"batch_norm2d": {"momentum": 0.3}, "id": "norm"},
        {"relu": {}, "id": "r1"},
        {"batch_norm2d": {"momentum": 0.3}, "id": "again", "share": "norm"},
        {"sigmoid": {}, "id": "s"},
        {"batch_norm2d": {"momentum": 0.3}, "id": "third", "share": "norm"},
        {"batch_norm2d": {"momentum": 0.3}, "id": "beside", "inputs": ["s"], "share": "norm"},
        {"add": {}, "inputs": ["third", "beside"]},
    ],
}


class Torch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.norm(self.norm(self.conv(x)).relu()).sigmoid()
        third: Tensor = self.norm(s)
        beside: Tensor = self.norm(s)
        return third + beside


def made() -> tuple[Torch, Model]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Torch().double()
    weights = {k: v.clone() for k, v in module.state_dict().items() if not k.endswith("tracked")}
    return module, Model(NETWORK, weights=weights)


def batch(step: int) -> tuple[Tensor, Tensor]:
    x, target = (random_tensor(SHAPE, seed=2 * step + i) for i in (0, 1))
    return x, target


def agrees(weights: Any, module: Torch) -> None:
    for name, expected in module.state_dict().items():
        if not name.endswith("tracked"):
            torch.testing.assert_close(weights[name], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"memory": "38 kB"}, {"without": ["common_subexpressions"]}], ids=str
)
def test_training_moves_the_statistics_once_for_each_node(options: dict[str, Any]) -> None:
    module, model = made()
    program = model.compile(
        SHAPE,
        loss="mse",
        optimizer={"sgd": {"lr": 0.1}},
        dtype=torch.float64,
        device="cpu",
        **options,
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(3):
        x, target = batch(step)
        program.step(x, target)
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), target).backward()
        optimizer.step()
    agrees(program.weights, module)
    module.eval()
    model = model.with_weights(program.weights)
    with torch.no_grad():
        torch.testing.assert_close(model.predict(batch(9)[0]), module(batch(9)[0]))


def test_accumulated_steps_move_the_statistics_in_each_step() -> None:
    module, model = made()
    program = model.compile(
        SHAPE,
        loss="mse",
        optimizer={"sgd": {"lr": 0.1}},
        dtype=torch.float64,
        device="cpu",
        accumulate=2,
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for update in range(2):
        optimizer.zero_grad()
        for step in range(2):
            x, target = batch(2 * update + step)
            program.step(x, target)
            (nn.functional.mse_loss(module(x), target) / 2).backward()
        optimizer.step()
    agrees(program.weights, module)


def test_torch_module_of_a_model_moves_its_statistics_once_for_each_node() -> None:
    module, model = made()
    ours = gn.as_torch_module(model, SHAPE, dtype=torch.float64).train()
    x, _ = batch(0)
    torch.testing.assert_close(ours(x), module(x))
    agrees(ours.state_dict(), module)

"""A user's code over graphnet.nn: `make lint` checks its types by mypy, and a test runs it.

Each `type: ignore` is a call that mypy must refuse: an unused one is an error of mypy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

import graphnet as gn
from graphnet import nn


def block(channels: int) -> nn.Sequential:
    """Two convolutions with a norm."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels, channels, (3, 1), padding="same"),
    )


def main() -> tuple[float, float]:
    """Train a little, and return the first loss and the last one."""
    net = nn.Sequential(
        {
            "encoder": nn.Conv2d(3, 8, 3, 2, 1),
            "block": block(8),
            "decoder": nn.ConvTranspose2d(8, 3, kernel_size=2, stride=2, dtype=torch.float32),
        }
    )
    criterion, optimizer = nn.MSELoss(), nn.AdamW(net.parameters(), lr=1e-2, betas=(0.9, 0.99))
    noisy = torch.rand(2, 3, 8, 8)
    losses: list[float] = []
    for _ in range(4):
        loss: Tensor = criterion(net(noisy), noisy)
        net.backward(criterion.backward())
        optimizer.update_parameters()
        losses.append(float(loss))
    first: nn.Tree = net[0]
    part: nn.Sequential = net[1:]
    names: list[str] = [name for name, _ in part.named_parameters()]
    state: dict[str, Tensor] = net.state_dict()
    loaded: nn.LoadedKeys = net.load_state_dict(state)
    lazy: nn.Conv2d = nn.Conv2d(out_channels=4, kernel_size=1)
    model: gn.Model = gn.from_nn(net.eval().double().float().train())
    back: nn.Module = gn.to_nn(model, (1, 3, 8, 8))
    assert not loaded.missing_keys
    assert names
    for module in (first, lazy, back):
        assert str(module)
    return losses[0], losses[-1]


if TYPE_CHECKING:
    nn.Conv2d("3", 8, 3)  # type: ignore[call-overload]
    nn.Conv2d(3, 8)  # type: ignore[call-overload]
    nn.Conv2d(3, 8, 3, paddding=1)  # type: ignore[call-overload]
    nn.Conv2d(3, 8, 3, padding="full")  # type: ignore[call-overload]
    nn.Dropout(p="half")  # type: ignore[arg-type]
    nn.MSELoss(delta=0.5)  # type: ignore[call-arg]
    nn.SGD([])  # type: ignore[call-arg]
    wrong: int = nn.ReLU()  # type: ignore[assignment]
    gn.Modle  # type: ignore[attr-defined]
    gn.testing.run_check  # type: ignore[attr-defined]

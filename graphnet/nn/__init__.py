"""NN: eager modules over the registered layers, with torch's habits and the paper's forward and backward.

    from graphnet import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    criterion, optimizer = nn.MSELoss(), nn.SGD(model.parameters(), lr=0.1)
    loss = criterion(model(x), target)
    model.backward(criterion.backward())
    optimizer.step()
    optimizer.zero_grad()

Every registered layer, loss and optimizer has its class here, also those of plugins; `dir(nn)` lists them.
Layers come in by name; modules go out. It imports executors and below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphnet.nn.composite import Composite
from graphnet.nn.describe import described
from graphnet.nn.module import Module
from graphnet.nn.network import Network
from graphnet.nn.optimizer import ModuleOptimizer
from graphnet.nn.registered import LayerModule, class_named, class_names, make, module_of
from graphnet.nn.sequential import Sequential
from graphnet.nn.tree import LoadedKeys, Pair, Tree

if TYPE_CHECKING:
    from graphnet.nn.known import *  # noqa: F403

__all__ = [
    "Composite",
    "LayerModule",
    "LoadedKeys",
    "Module",
    "ModuleOptimizer",
    "Network",
    "Pair",
    "Sequential",
    "Tree",
    "described",
    "make",
    "module_of",
]


def __getattr__(name: str) -> Any:
    return class_named(name)


def __dir__() -> list[str]:
    return sorted({*__all__, *class_names()})

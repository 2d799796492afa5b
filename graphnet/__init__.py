"""graphnet: layers that state their own forward and backward, compiled into one plan.

    import graphnet as gn

    model = gn.load("seed.yaml")
    program = model.compile((32, 3, 32, 32), loss="mse", optimizer=gn.SGD(lr=10.0))
    loss = program.step(noisy, other)

Names are imported when they are first used, so that `import graphnet` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from graphnet.bridges import as_torch_module as as_torch_module
    from graphnet.bridges import from_torch_module as from_torch_module
    from graphnet.builder import Builder as Builder
    from graphnet.data import DataSet as DataSet
    from graphnet.data import Gallery as Gallery
    from graphnet.data import Pairs as Pairs
    from graphnet.data import Stream as Stream
    from graphnet.errors import GraphnetError as GraphnetError
    from graphnet.executors import Executor as Executor
    from graphnet.executors import Run as Run
    from graphnet.hookspecs import hookimpl as hookimpl
    from graphnet.layer import Kernel as Kernel
    from graphnet.layer import Layer as Layer
    from graphnet.layer import Loss as Loss
    from graphnet.model import Model as Model
    from graphnet.multitensor import MultiTensorKernel as MultiTensorKernel
    from graphnet.native import Native as Native
    from graphnet.optim import SGD as SGD
    from graphnet.optim import Adam as Adam
    from graphnet.optim import AdamW as AdamW
    from graphnet.optim import Optimizer as Optimizer
    from graphnet.optim import Schedule as Schedule
    from graphnet.optimizers.muon import Muon as Muon
    from graphnet.program import Program as Program
    from graphnet.spec import Constant as Constant
    from graphnet.spec import ParameterSpec as ParameterSpec
    from graphnet.spec import StateSpec as StateSpec
    from graphnet.spec import Uniform as Uniform

_HOMES = {
    "Adam": "optim",
    "AdamW": "optim",
    "Builder": "builder",
    "Constant": "spec",
    "DataSet": "data",
    "Executor": "executors",
    "Gallery": "data",
    "GraphnetError": "errors",
    "Kernel": "layer",
    "Layer": "layer",
    "Loss": "layer",
    "Model": "model",
    "Muon": "optimizers.muon",
    "Native": "native",
    "MultiTensorKernel": "multitensor",
    "Optimizer": "optim",
    "Pairs": "data",
    "ParameterSpec": "spec",
    "Program": "program",
    "Run": "executors",
    "SGD": "optim",
    "Schedule": "optim",
    "StateSpec": "spec",
    "Stream": "data",
    "Uniform": "spec",
    "as_torch_module": "bridges",
    "from_torch_module": "bridges",
    "hookimpl": "hookspecs",
}

__all__ = [*sorted(_HOMES), "load"]


def load(path: Path | str) -> Model:
    """Read a model: a .yaml description, or a .safetensors file with weights."""
    from graphnet.model import Model

    return Model.load(path)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"graphnet.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'graphnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

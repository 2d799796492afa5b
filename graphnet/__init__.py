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

    from graphnet import bridges as bridges
    from graphnet import builtin as builtin
    from graphnet import errors as errors
    from graphnet import executors as executors
    from graphnet import graph as graph
    from graphnet import inspection as inspection
    from graphnet import model as model
    from graphnet import nn as nn
    from graphnet import plan as plan
    from graphnet import sdk as sdk
    from graphnet import system as system
    from graphnet import testing as testing
    from graphnet import training as training
    from graphnet.bridges import as_torch_module as as_torch_module
    from graphnet.bridges import from_torch as from_torch
    from graphnet.bridges import from_torch_module as from_torch_module
    from graphnet.builtin import SGD as SGD
    from graphnet.builtin import Adam as Adam
    from graphnet.builtin import AdamW as AdamW
    from graphnet.builtin import Muon as Muon
    from graphnet.errors import GraphnetError as GraphnetError
    from graphnet.inspection import explain as explain
    from graphnet.model import Builder as Builder
    from graphnet.model import Model as Model
    from graphnet.model import Program as Program
    from graphnet.model import export as export
    from graphnet.model import export_standalone as export_standalone
    from graphnet.model import from_nn as from_nn
    from graphnet.model import join_processes as join_processes
    from graphnet.model import to_nn as to_nn
    from graphnet.plan import CompileOptions as CompileOptions
    from graphnet.plan import source as source
    from graphnet.sdk import Command as Command
    from graphnet.sdk import Constant as Constant
    from graphnet.sdk import DataSet as DataSet
    from graphnet.sdk import Executor as Executor
    from graphnet.sdk import Gallery as Gallery
    from graphnet.sdk import Kernel as Kernel
    from graphnet.sdk import Layer as Layer
    from graphnet.sdk import Loss as Loss
    from graphnet.sdk import Metric as Metric
    from graphnet.sdk import ModelFile as ModelFile
    from graphnet.sdk import MultiTensorKernel as MultiTensorKernel
    from graphnet.sdk import Optimizer as Optimizer
    from graphnet.sdk import Pairs as Pairs
    from graphnet.sdk import ParameterSpec as ParameterSpec
    from graphnet.sdk import Pass as Pass
    from graphnet.sdk import Registry as Registry
    from graphnet.sdk import Report as Report
    from graphnet.sdk import Reporter as Reporter
    from graphnet.sdk import Run as Run
    from graphnet.sdk import Schedule as Schedule
    from graphnet.sdk import StateSpec as StateSpec
    from graphnet.sdk import Stream as Stream
    from graphnet.sdk import Uniform as Uniform
    from graphnet.sdk import Writer as Writer
    from graphnet.sdk import Written as Written
    from graphnet.sdk import hookimpl as hookimpl
    from graphnet.system import Native as Native
    from graphnet.training import train as train

_ROOMS = {
    "Adam": "builtin",
    "AdamW": "builtin",
    "Builder": "model",
    "Command": "sdk",
    "CompileOptions": "plan",
    "Constant": "sdk",
    "DataSet": "sdk",
    "Executor": "sdk",
    "Gallery": "sdk",
    "GraphnetError": "errors",
    "Kernel": "sdk",
    "Layer": "sdk",
    "Loss": "sdk",
    "Metric": "sdk",
    "Model": "model",
    "ModelFile": "sdk",
    "MultiTensorKernel": "sdk",
    "Muon": "builtin",
    "Native": "system",
    "Optimizer": "sdk",
    "Pairs": "sdk",
    "ParameterSpec": "sdk",
    "Pass": "sdk",
    "Program": "model",
    "Registry": "sdk",
    "Report": "sdk",
    "Reporter": "sdk",
    "Run": "sdk",
    "SGD": "builtin",
    "Schedule": "sdk",
    "StateSpec": "sdk",
    "Stream": "sdk",
    "Uniform": "sdk",
    "Writer": "sdk",
    "Written": "sdk",
    "as_torch_module": "bridges",
    "explain": "inspection",
    "export": "model",
    "export_standalone": "model",
    "from_nn": "model",
    "from_torch": "bridges",
    "from_torch_module": "bridges",
    "hookimpl": "sdk",
    "join_processes": "model",
    "source": "plan",
    "to_nn": "model",
    "train": "training",
}

_MODULES = frozenset({*_ROOMS.values(), "executors", "graph", "nn", "testing", "training"})
"""Imported as attributes too, such as `gn.nn`."""

__all__ = [*sorted(_ROOMS), "load"]


def load(path: Path | str, *, registry: Registry | None = None) -> Model:
    """Read a model: a .yaml or .toml description, a .safetensors file with weights, or a plugin's file.

    `registry` has the layers that the model may use; None takes those of the installed plugins.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.yaml"
    ...     _ = path.write_text("layers: [relu]")
    ...     model = load(path)
    >>> model.predict(torch.tensor([[-1.0, 2.0]]))
    tensor([[0., 2.]])
    """
    from graphnet.model import Model

    return Model.load(path, registry=registry)


if not TYPE_CHECKING:  # with it, type checkers would accept any name, and know no type

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return getattr(importlib.import_module(f"graphnet.{_ROOMS[name]}"), name)
        if name in _MODULES:
            return importlib.import_module(f"graphnet.{name}")
        raise AttributeError(f"module 'graphnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

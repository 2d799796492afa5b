"""Bridges to and from torch modules: the one room with autograd.

`as_torch_module` makes a layer or a model a torch.nn.Module whose autograd runs the explicit backward;
`from_torch` traces a torch.nn.Module into a model of graphnet's layers; `from_torch_module` turns a
torch.nn.Module into a single layer, whose backward is torch.func.vjp. A layer, model or torch module comes
in; the other kind goes out. It imports nn, model and below.
"""

from __future__ import annotations

from graphnet.bridges.to_torch import as_torch_module
from graphnet.bridges.torch_layer import TorchLayer, from_torch_module, plugin
from graphnet.bridges.traced_model import TracedModel, from_torch

__all__ = [
    "TorchLayer",
    "TracedModel",
    "as_torch_module",
    "from_torch",
    "from_torch_module",
    "plugin",
]

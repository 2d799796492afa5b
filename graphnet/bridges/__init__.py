"""Bridges to and from torch modules: the one room with autograd.

`as_torch_module` makes a layer or a model a torch.nn.Module whose autograd runs the explicit backward;
`from_torch_module` makes a torch.nn.Module a layer, whose backward is torch.func.vjp. A layer, model or torch
module comes in; the other kind goes out. It imports nn, model
and below.
"""

from __future__ import annotations

from graphnet.bridges.from_torch import TorchLayer, from_torch_module, plugin
from graphnet.bridges.to_torch import as_torch_module

__all__ = [
    "TorchLayer",
    "as_torch_module",
    "from_torch_module",
    "plugin",
]

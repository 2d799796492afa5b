"""Choice: the layer or kernel that computes a module on inputs of some specs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from graphnet.graph import Bound, bind_inputs, bound_on, observe
from graphnet.passes import kernel_for
from graphnet.sdk import Layer, Spec, default_registry


@dataclass(frozen=True, slots=True)
class Choice:
    """The layer or kernel that runs on inputs of some specs, with the specs of its tensors."""

    layer: Layer
    specs: Mapping[str, Bound]
    outputs: tuple[Spec, ...]


@lru_cache(maxsize=4096)
def choose(layer: Layer, inputs: tuple[Spec, ...], dtype: torch.dtype) -> Choice:
    """Choose the layer or kernel for inputs of these specs; the layer raises if they do not fit."""
    device = inputs[0].device if inputs else torch.device("cpu")
    ports = bind_inputs(layer, inputs, dtype)
    specs = {name: bound_on(spec, device) for name, spec in ports.specs.items()}
    seen = observe(layer, "forward", specs)
    outputs = tuple(result.spec.on(device) for result in seen[: len(layer.outputs)])
    return Choice(kernel_for(layer, specs, device, default_registry()) or layer, specs, outputs)

"""LayerSequence: the layers that a bridged layer or model runs, for inputs of given shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from graphnet.bridges.explicit import Use, make_use
from graphnet.description import check_inputs
from graphnet.errors import GraphnetError
from graphnet.graph import Call, Const, Graph, Kind, bind_inputs, bound_on
from graphnet.model import Model
from graphnet.passes import kernel_for
from graphnet.sdk import Layer, Loss, Registry, Spec


@dataclass(frozen=True)
class LayerSequence:
    """The layers to run, in order, on named values.

    Args:
        inputs: the names of the inputs.
        uses: the layers, with the names of the values that each reads and makes.
        outputs: the names of the outputs.
    """

    inputs: tuple[str, ...]
    uses: tuple[Use, ...]
    outputs: tuple[str, ...]


class Computation:
    """The layer or model that a torch module computes. It never changes, so copies of a module share it."""

    def layers_for(self, specs: Sequence[Spec], dtype: torch.dtype) -> LayerSequence:
        """Choose the layers and kernels for inputs of these specs and parameters of this dtype."""
        raise NotImplementedError

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class LayerComputation(Computation):
    """A single layer, or the kernel that takes its place."""

    def __init__(self, layer: Layer, registry: Registry) -> None:
        self.layer = layer
        self.registry = registry

    def __str__(self) -> str:
        return str(self.layer)

    def layers_for(self, specs: Sequence[Spec], dtype: torch.dtype) -> LayerSequence:
        device = specs[0].device if specs else torch.device("cpu")
        title = self.registry.name_of(self.layer)
        try:
            ports = bind_inputs(self.layer, specs, dtype)
        except GraphnetError as error:
            raise type(error)(f"{title}: {error}") from error
        bound = {name: bound_on(spec, device) for name, spec in ports.specs.items()}
        layer = kernel_for(self.layer, bound, device, self.registry) or self.layer
        inputs = tuple(f"{i}" for i in range(len(specs)))  # no parameter or state has such a name
        arguments: dict[str, str | tuple[str, ...] | None] = {
            name: None if spec is None else name for name, spec in bound.items()
        }
        if layer.signature.variadic:
            arguments[layer.signature.variadic] = inputs
        else:
            arguments.update(zip(ports.inputs, inputs, strict=True))
        use = make_use(
            layer,
            title=title,
            is_loss=isinstance(self.layer, Loss),
            arguments=arguments,
            results=tuple(f"{name} " for name in layer.outputs),
            written=layer.updates,
            specs=bound,
        )
        return LayerSequence(inputs, (use,), use.results)


class ModelComputation(Computation):
    """The layers of a model's graph."""

    def __init__(self, model: Model, kernels: str) -> None:
        self.model = model
        self.kernels = kernels

    def __str__(self) -> str:
        return self.model.description.name

    def layers_for(self, specs: Sequence[Spec], dtype: torch.dtype) -> LayerSequence:
        check_inputs(self.model.description.inputs, specs, str(self))
        graph = self.model.graph(
            *(spec.shape for spec in specs),
            device=specs[0].device,
            dtype=dtype,
            kernels=self.kernels,
        )
        calls = (call for call in graph.order() if call.kind in (Kind.LAYER, Kind.LOSS))
        uses = tuple(_use(graph, call) for call in calls)
        return LayerSequence(graph.inputs, uses, graph.outputs)


def _use(graph: Graph, call: Call) -> Use:
    layer = call.layer
    assert isinstance(layer, Layer)
    ports = call.ports()
    tensors = layer.signature.tensors
    specs = {name: graph.spec_of(ports[name]) for name in tensors}
    return make_use(
        layer,
        title=f"node {call.node!r} ({call.title})",
        is_loss=call.kind is Kind.LOSS,
        arguments={n: None if isinstance(arg := ports[n], Const) else arg for n in tensors},
        results=tuple(str(ports[name]) for name in layer.outputs),
        written=tuple(str(ports[name]) for name in layer.updates),
        specs=specs,
    )

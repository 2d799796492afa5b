"""Layer model: a model of one layer, to compare what is made of the model with the layer itself."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.testing.case import Case


def model_of(name: str, case: Case) -> tuple[Model, list[Tensor]]:
    """Make a model of one layer whose sizes are named, with random weights, and inputs for it.

    Args:
        name: the registered name of the layer.
        case: a configuration of the layer, and the shapes of its inputs.

    >>> from graphnet.sdk import load_registry
    >>> registry = load_registry(entry_points=False)
    >>> from graphnet.testing import cases_for
    >>> case = cases_for(registry.find("layers", "relu").value, registry=registry)[0]
    >>> model, inputs = model_of("relu", case)
    >>> torch.equal(model.predict(*inputs), inputs[0].relu())
    True
    """
    generator = torch.Generator().manual_seed(1)
    inputs = [
        x if isinstance(x, Tensor) else torch.randn(x, generator=generator) for x in case.inputs
    ]
    described = {
        f"x{number}": {
            "shape": [f"n{number}_{axis}" for axis in range(1, x.ndim)],
            "dtype": str(x.dtype).removeprefix("torch."),
        }
        for number, x in enumerate(inputs)
    }
    config = json.loads(json.dumps(case.layer.configuration()))
    node = {"id": "layer", name: config, "inputs": [f"${name}" for name in described]}
    data: dict[str, Any] = {"inputs": described, "layers": [node]}
    if len(case.layer.outputs) > 1:
        data["outputs"] = ["layer", *(f"layer.{output}" for output in case.layer.outputs[1:])]
    model = Model(data, registry=case.registry)
    return with_random_weights(model, *(tuple(x.shape) for x in inputs)), inputs


def with_random_weights(model: Model, *shapes: tuple[int, ...]) -> Model:
    """Draw other weights than those of the start, so that a norm's are not 1, and its states not 0 and 1.

    Args:
        model: the model.
        shapes: a shape for each input.

    >>> model = with_random_weights(Model({"layers": ["batch_norm2d"]}), (1, 2, 3, 3))
    >>> bool((model.weights["batch_norm2d_1.weight"] == 1).any())
    False
    """
    generator = torch.Generator().manual_seed(2)
    graph = model.graph(*shapes)
    weights = {}
    for value in graph.sources(Kind.PARAMETER, Kind.STATE):
        spec = graph.values[value].spec
        if not spec.dtype.is_floating_point:
            weights[value] = torch.ones(spec.shape, dtype=spec.dtype)
        elif graph.values[value].kind is Kind.STATE:
            weights[value] = torch.rand(spec.shape, generator=generator) + 0.5
        else:
            fan = max(1, spec.numel // max(1, spec.shape[0] if spec.shape else 1))
            weights[value] = torch.randn(spec.shape, generator=generator) / fan**0.5
    return model.with_weights(weights)

"""Inference: reduce the forward graph to what a prediction computes: no saves, no new states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphnet.errors import LayerError, blame
from graphnet.graph import Call, Const, Graph, Kind, Value, observe, resolve_view
from graphnet.passes.rewrite import at
from graphnet.sdk import Layer


def inference(graph: Graph) -> Graph:
    """Use `inference` where a layer defines it; remove the results that only training reads."""
    calls: dict[str, Call] = {}
    values = dict(graph.values)
    for name, call in graph.calls.items():
        assert isinstance(call.layer, Layer)
        calls[name] = inference_call(call, graph, values)
    needed = {value for call in calls.values() for value in call.reads()} | set(graph.outputs)
    calls = {  # without the random keys that only a forward in training reads
        name: call for name, call in calls.items() if any(value in needed for value in call.makes())
    }
    made = {value for call in calls.values() for value in call.makes()}
    kept = {
        name: value
        for name, value in values.items()
        if name in made or name in needed or name in graph.inputs
    }
    return replace(graph, calls=calls, values=kept)


def inference_call(call: Call, graph: Graph, values: dict[str, Value]) -> Call:
    """The call of a layer's `inference` in the place of its forward; also sets the views in `values`."""
    layer = call.layer
    assert isinstance(layer, Layer)
    if call.kind is Kind.FOLD:
        return call
    outputs = call.results[: len(layer.outputs)]
    if not layer.signature.inference:
        return replace(call, results=outputs + (None,) * (len(call.results) - len(outputs)))
    ports = call.ports()
    specs: dict[str, Any] = {name: graph.spec_of(ports[name]) for name in layer.signature.tensors}
    with blame(at(call), "inference"):
        observed = observe(layer, "inference", specs)
    for output, seen in zip(outputs, observed, strict=True):
        name = str(output)
        spec = seen.spec.on(values[name].spec.device)
        if spec != values[name].spec:
            raise LayerError(
                f"{at(call)}inference returns {seen.spec}, but forward returns {values[name].spec}"
            )
        values[name] = replace(values[name], view_of=resolve_view(ports, seen.view_of))
    args = tuple(
        Const(specs) if name == "specs" else ports[name] for name in layer.signature.inference
    )
    return replace(call, method="inference", args=args, results=outputs)

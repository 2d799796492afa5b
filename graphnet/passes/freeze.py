"""Freeze: parameters that a training leaves as they are, and norms that keep their statistics.

A frozen parameter gets no gradient, no optimizer state and no update, and the reverse pass ends where no
trained parameter lies before it. A state that is frozen, such as a running mean, is not updated either: its
layer then computes what it computes in a prediction. A norm does this by its `affine_map`,

    y = scale x + shift,    scale, shift = norm.affine_map(...)

whose gradient is grad_x = scale grad_y.
"""

from __future__ import annotations

from dataclasses import replace

from graphnet.description import UpdateSettings
from graphnet.errors import DescriptionError, LayerError, Problem
from graphnet.graph import SLOTS, Call, Graph, Kind, Value
from graphnet.passes.differentiate import live_values, reads_live
from graphnet.passes.inference import inference_call
from graphnet.passes.rewrite import at, bound_arguments, call_method
from graphnet.sdk import Layer, ScaleShift


def freeze(graph: Graph, *, updates: UpdateSettings) -> Graph:
    """Freeze the parameters and states that the selectors in `updates` name.

    Raises:
        DescriptionError: no parameter is left to be trained.
        LayerError: a layer cannot keep its states while values before it, or its own parameters, are trained.
    """
    frozen = {name for name in graph.sources(*SLOTS) if updates.freezes(name)}
    values = {
        name: replace(value, kind=Kind.FROZEN)
        if name in frozen and value.kind is Kind.PARAMETER
        else value
        for name, value in graph.values.items()
    }
    graph = replace(graph, values=values)
    if frozen and not graph.parameters:
        raise DescriptionError(
            [Problem("all parameters are frozen: none is left to train", "parameters")]
        )
    live, calls = live_values(graph), {}
    for name, call in graph.calls.items():
        if call.kind is Kind.LAYER and _keeps_states(call, frozen):
            calls.update(_as_in_prediction(call, graph, values, live))
        else:
            calls[name] = call
    return replace(graph, calls=calls, values=values)


def _keeps_states(call: Call, frozen: set[str]) -> bool:
    """Whether the states that the call's layer updates are frozen; raises LayerError if only some are."""
    assert isinstance(call.layer, Layer)
    ports = call.ports()
    states = {state: ports[state] in frozen for state in call.layer.updates}
    if len(set(states.values())) > 1:
        named = ", ".join(state for state, is_frozen in states.items() if is_frozen)
        raise LayerError(
            f"{at(call)}expected all states ({', '.join(states)}) or none to be frozen, found {named}. "
            f"Let a `match` with `freeze` name them all, such as {call.node!r}.*"
        )
    return any(states.values())


def _as_in_prediction(
    call: Call, graph: Graph, values: dict[str, Value], live: set[str]
) -> dict[str, Call]:
    """The calls in the place of a forward call whose states are frozen."""
    layer, bound = call.layer, bound_arguments(call)
    assert isinstance(layer, Layer)
    image, *rest = bound.values()
    cause = ""
    if any(reads_live(arg, live) for arg in rest):
        cause = "its parameters are trained. Freeze them too"
    elif reads_live(image, live) and not layer.signature.of("affine_map"):
        cause = (
            f"parameters before it are trained, and {type(layer).__name__} has no affine_map. "
            "Freeze those too, or let the states be updated"
        )
    if cause:
        raise LayerError(f"{at(call)}its states cannot be frozen while {cause}.")
    dropped = call.results[len(layer.outputs) :]
    for result in dropped:
        values.pop(str(result), None)
    results = (*call.results[: len(layer.outputs)], *(None for _ in dropped))
    if not layer.signature.of("affine_map"):
        return {call.name: replace(call, results=results)}
    device, name = values[str(call.results[0])].spec.device, f"{call.name}:affine_map"
    made = call_method(call, "affine_map", bound, values, name=name, device=device)
    scaled = replace(
        call, layer=ScaleShift(), args=(image, *map(str, made.results)), results=results[:1]
    )
    return {made.name: made, call.name: scaled}


def keep_states(graph: Graph) -> Graph:
    """Let the layers with frozen states run `inference`; kernels and layouts are chosen by then."""
    calls, values = dict(graph.calls), dict(graph.values)
    for name, call in graph.calls.items():
        keeps = isinstance(call.layer, Layer) and call.layer.updates and not call.new_states()
        if call.kind is Kind.LAYER and keeps:
            calls[name] = inference_call(call, graph, values)
    return replace(graph, calls=calls, values=values)

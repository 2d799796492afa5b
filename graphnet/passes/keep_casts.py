"""Keep casts: casts of parameters are slots, which the update writes together with the parameters.

In mixed precision a step begins with casts of all parameters. Some kernels of optimizers write each new
parameter in the narrow dtype too. Then the next step needs no casts: on a GPU this saves a launch, and a pass
over all parameters. When weights are set from outside, their casts are computed anew before the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from graphnet.graph import CAST, Arg, Call, Const, Graph, Kind, Value, flatten
from graphnet.passes.rewrite import written_value
from graphnet.passes.update import readers_of
from graphnet.sdk import Cast, Constant, MultiTensorKernel, arguments_of_run


class _Made(NamedTuple):
    """The call that casts a parameter, and the value that it makes."""

    call: str
    value: str


def keep_casts(graph: Graph) -> Graph:
    """Keep the casts of all parameters that one call updates, if its kernel can write them."""
    casts = _casts(graph)
    for call in graph.calls.values():
        kernel = call.layer
        if isinstance(kernel, MultiTensorKernel) and kernel.copies:
            parameters = tuple(flatten(call.args[:1]))
            found = {name: casts[name] for name in parameters if name in casts}
            dtypes = {graph.values[one.value].spec.dtype for one in found.values()}
            if len(found) == len(parameters) and len(dtypes) == 1:
                graph = _kept(graph, call, found)
    return graph


def _casts(graph: Graph) -> dict[str, _Made]:
    """Parameter -> its cast; without those that have several."""
    found: dict[str, list[_Made]] = {}
    for name, call in graph.calls.items():
        rule = call.layer.rule if isinstance(call.layer, MultiTensorKernel) else call.layer
        if call.kind is Kind.LAYER and type(rule) is Cast:
            for source, made in zip(call.reads(), call.makes(), strict=True):
                if graph.values[source].kind is Kind.PARAMETER:
                    found.setdefault(source, []).append(_Made(name, made))
    return {source: made[0] for source, made in found.items() if len(made) == 1}


def _kept(graph: Graph, update: Call, casts: Mapping[str, _Made]) -> Graph:
    calls, values = dict(graph.calls), dict(graph.values)
    slots = {one.value for one in casts.values()}
    for parameter, one in casts.items():
        values[one.value] = _slot(values[one.value], values[parameter])
    for name in dict.fromkeys(one.call for one in casts.values()):
        if (left := _without(calls[name], slots)) is None:
            del calls[name]
        else:
            calls[name] = left
    names = tuple(one.value for one in casts.values())
    written = {written_value(values, name).name: name for name in names}
    waiting = dict.fromkeys(update.after)
    for name in names:
        waiting |= dict.fromkeys(readers_of(graph, name))
    waiting.pop(update.name, None)
    calls[update.name] = replace(
        update,
        args=(*_with_finite(update), names),
        results=(*update.results, *written),
        writes={**update.writes, **written},
        after=tuple(name for name in waiting if name in calls),
    )
    return replace(graph, calls=calls, values=values)


def _slot(cast: Value, parameter: Value) -> Value:
    return replace(
        cast,
        kind=Kind.STATE,
        of=parameter.name,
        role=CAST,
        initializer=Constant(0.0),
        memory_format=parameter.memory_format,
    )


def _without(call: Call, slots: set[str]) -> Call | None:
    """The cast without those that are slots now; None if no other is left."""
    pairs = zip(call.reads(), call.makes(), strict=True)
    left = [(source, made) for source, made in pairs if made not in slots]
    if not left:
        return None
    sources, made = zip(*left, strict=True)
    return replace(call, args=(sources, *call.args[1:]), results=made)


def _with_finite(update: Call) -> tuple[Arg, ...]:
    """The arguments of an update; if the kernel takes `finite` and the update has none, it is None."""
    kernel = update.layer
    assert isinstance(kernel, MultiTensorKernel)
    *before, _copies = arguments_of_run(type(kernel))
    return (*update.args, *[Const(None)] * (len(before) - len(update.args)))

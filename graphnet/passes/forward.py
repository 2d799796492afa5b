"""Forward calls with other arguments: what they return is observed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphnet.build import resolve_view
from graphnet.errors import blame
from graphnet.graph import Arg, Call, Const, Value
from graphnet.layer import Layer
from graphnet.observe import observe
from graphnet.passes.differentiate import at


def bound_arguments(call: Call) -> dict[str, Arg]:
    """What stands behind each argument name of a forward call."""
    layer = call.layer
    assert isinstance(layer, Layer)
    return dict(zip(layer.signature.forward, call.args, strict=True))


def rewire(call: Call, bound: Mapping[str, Arg], values: dict[str, Value]) -> Call:
    """The call on the arguments in `bound`; its results in `values` become what it now returns.

    Raises LayerError, which names the node, when forward fails on them.
    """
    layer = call.layer
    assert isinstance(layer, Layer)
    specs = {name: spec_of(bound[name], values) for name in layer.signature.tensors}
    with blame(at(call), "forward"):
        observed = observe(layer, "forward", specs)
    for name, seen in zip(call.results, observed, strict=True):
        if isinstance(name, str):
            value = values[name]
            spec = seen.spec.on(value.spec.device)
            values[name] = replace(value, spec=spec, view_of=resolve_view(bound, seen.view_of))
    given: dict[str, Arg] = {**bound, "specs": Const(specs)}
    return replace(call, args=tuple(given[name] for name in layer.signature.forward))


def spec_of(arg: Arg, values: Mapping[str, Value]) -> Any:
    """The Spec behind an argument, a tuple of them for `*xs`, None for an absent parameter."""
    match arg:
        case str():
            return values[arg].spec
        case tuple():
            return tuple(values[name].spec for name in arg)
        case Const():
            return None


def renamed(arg: Arg, names: Mapping[str, str]) -> Arg:
    """The argument with some of its values replaced by others."""
    match arg:
        case str():
            return names.get(arg, arg)
        case tuple():
            return tuple(names.get(name, name) for name in arg)
        case Const():
            return arg

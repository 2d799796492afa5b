"""Calls: check that the results of a call agree with the table of values.

Layers and rules run on meta tensors with the specs of the arguments. Their results must have the shapes,
dtypes and views of the table. The layouts of the values must be those that the layer declares for its ports.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphnet.graph import (
    META,
    SOURCES,
    Arg,
    Call,
    Const,
    Kind,
    Returned,
    Slot,
    Value,
    flat,
    flatten,
    run_on_meta,
)
from graphnet.sdk import Convert, Layer, Layout

_PLAIN: Mapping[str, Layout] = {}
_SHOWN = 6  # arguments that an error names


def disagreement(call: Call, values: Mapping[str, Value], storage: Mapping[str, str]) -> str:
    """The first fault of a call's arguments or results, as text; empty if there is none.

    `storage` says for each value in which value's storage it lies.
    """
    try:
        returned = run_on_meta(call, values)
    except Exception as error:  # the definition's own code can raise any exception
        read = [f"{name!r} ({values[name].spec})" for name in call.reads()]
        more = f" and {len(read) - _SHOWN} more" if len(read) > _SHOWN else ""
        given = f"{', '.join(read[:_SHOWN])}{more}"
        return f"{call.title}: {call.function} refuses {given}: {type(error).__name__}: {error}"
    if call.kind is Kind.UPDATE:
        return _update(call, values)
    if len(returned) != len(results := list(flat(call.results))):
        return f"{call.function} returns {len(returned)} results, not {len(results)}"
    for name, one in zip(results, returned, strict=True):
        if name is not None and (words := _result(call, values[name], one, storage)):
            return words
    if not isinstance(call.layer, Layer):
        return ""
    return _constants(call, values) or _layouts(call, call.layer, values)


def _update(call: Call, values: Mapping[str, Value]) -> str:
    for name, slot in call.writes.items():
        if (values[name].spec, values[name].layout) != (values[slot].spec, values[slot].layout):
            return f"{name!r} is {values[name].spec}, but its slot is {values[slot].spec}"
    return ""


def _result(call: Call, value: Value, one: Returned, storage: Mapping[str, str]) -> str:
    if one.spec is None or one.spec.on(META) != value.spec.on(META):
        found = one.spec or "no tensor"
        return f"{call.function} returns {value.name!r} as {found}, the plan says {value.spec}"
    arguments = list(call.reads())
    shared = {storage[arguments[i]] for i in one.arguments}
    mine = storage[value.name]
    if not one.unsettled and shared and mine not in shared:
        returned = f"{call.function} returns {value.name!r} as a view of {min(shared)!r}"
        return f"{returned}, the plan gives it another storage"
    if not one.unsettled and not shared and mine not in call.makes():
        returned = f"{call.function} returns {value.name!r} in a storage of its own"
        return f"{returned}, the plan says that it is a view of {mine!r}"
    return ""


def _constants(call: Call, values: Mapping[str, Value]) -> str:
    """The first spec in `specs` that differs from the argument that the call reads, as text."""
    assert isinstance(call.layer, Layer)
    arguments = dict(zip(call.layer.signature.of(call.method), call.args, strict=True))
    match arguments.get("specs"):
        case Const(value=Mapping() as specs):
            for name, arg in arguments.items():
                if name in specs and isinstance(arg, str) and specs[name] != values[arg].spec:
                    return (
                        f"'specs' says that {name!r} is {specs[name]}, but it is {values[arg].spec}"
                    )
    return ""


def _layouts(call: Call, layer: Layer, values: Mapping[str, Value]) -> str:
    """The first value whose layout does not fit what the layer declares, as text."""
    if call.kind is Kind.FOLD:
        return ""  # the shapes of parameters belong to N C H W
    ports = _ports(call, layer)
    lie = {
        port: values[name].layout
        for port, arg in ports.items()
        for name in flatten((arg,))
        if values[name].kind is Kind.INPUT or values[name].kind not in SOURCES
    }
    if isinstance(layer, Convert):
        wanted = {"x": layer.source, "y": layer.target}
        wrong = [port for port, stack in lie.items() if stack != wanted[port]]
        made = f"converts {layer.source} to {layer.target}"
        return f"{made}, but {wrong[0]!r} has another layout" if wrong else ""
    if call.kind is Kind.ACCUMULATE:
        different = {values[name].layout for name in (*call.reads(), *call.makes())}
        return "adds values of different layouts" if len(different) > 1 else ""
    return _fit(call, layer, ports, values)


def _fit(call: Call, layer: Layer, ports: Mapping[str, Arg], values: Mapping[str, Value]) -> str:
    declared = _declared(layer, ports, values)
    rests: dict[Layout | None, str] = {}
    for port, arg in ports.items():
        for name in flatten((arg,)):
            value = values[name]
            stack = value.layout
            if value.kind in SOURCES and value.kind is not Kind.INPUT:
                continue
            if port not in declared:
                if stack is not None:
                    return f"takes {port!r} in N C H W, but {name!r} lies in the blocks {stack}"
            elif stack is None:
                if any(declared.values()) and len(value.spec.shape) == 4:
                    return f"takes {port!r} in blocks, but {name!r} lies in N C H W"
                if len(value.spec.shape) == 4:
                    rests[None] = name
            elif stack[: len(declared[port])] != declared[port]:
                return (
                    f"takes {port!r} in the blocks {declared[port]}, but {name!r} lies in {stack}"
                )
            else:
                rests[stack[len(declared[port]) :]] = name
    if len(rests) > 1:
        return f"works in one layout, but {' and '.join(map(repr, rests.values()))} have two"
    return ""


def _declared(
    layer: Layer, ports: Mapping[str, Arg], values: Mapping[str, Value]
) -> Mapping[str, Layout]:
    if not layer.pointwise:
        return layer.layouts or _PLAIN
    kinds = {values[name].kind for name in flatten(ports.values())}
    tensors = [ports[port] for port in layer.signature.tensors if port in ports]
    shapes = {values[name].spec.shape for name in flatten(tensors)}
    if kinds & (SOURCES - {Kind.INPUT}) or len(shapes) > 1:  # with a parameter or its cast
        return _PLAIN
    return dict.fromkeys(ports, ())


def _ports(call: Call, layer: Layer) -> dict[str, Arg]:
    """Port -> the values there; the gradient of a value counts as a value at the same port."""
    method = call.method
    named: list[tuple[str, Arg]] = list(zip(layer.signature.of(method), call.args, strict=True))
    if method != "backward":
        names = layer.outputs + (layer.saves + layer.updates if method == "forward" else ())
        named += zip(names, map(_arg, call.results), strict=False)
    else:
        gradients = [name for name in layer.signature.tensors if name not in layer.updates]
        if len(gradients) == len(call.results):
            named += zip(gradients, map(_arg, call.results), strict=True)
    ports: dict[str, Arg] = {}
    for name, arg in named:
        port = name.removeprefix("grad_")
        values = tuple(name for name in flatten((arg,)))
        ports[port] = (*flatten((ports.get(port, Const(None)),)), *values)
    return ports


def _arg(slot: Slot) -> Arg:
    """A result in the form of an argument."""
    values = tuple(flatten((slot,)))
    return values if isinstance(slot, tuple) else slot or Const(None)

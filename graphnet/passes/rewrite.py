"""Rewrite: the changes of calls and values that several passes share: rename, rewire, cast, write."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from graphnet.errors import LayerError, blame
from graphnet.graph import (
    SLOTS,
    Arg,
    Call,
    Const,
    Graph,
    Kind,
    Value,
    observe,
    resolve_view,
    result_names,
    spec_of,
)
from graphnet.sdk import DTYPES, Cast, Definition, DType, Layer, Scaled, Sharding, Spec, StateSpec


def bound_arguments(call: Call) -> dict[str, Arg]:
    """Argument name -> argument of a forward call."""
    layer = call.layer
    assert isinstance(layer, Layer)
    return dict(zip(layer.signature.forward, call.args, strict=True))


def rewire(call: Call, bound: Mapping[str, Arg], values: dict[str, Value]) -> Call:
    """The forward call with the arguments in `bound`; also sets the specs of its results in `values`.

    Raises:
        LayerError: `forward` fails on these arguments; the message names the node.
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


def call_method(
    call: Call,
    method: str,
    bound: Mapping[str, Arg],
    values: dict[str, Value],
    *,
    name: str,
    device: torch.device,
) -> Call:
    """A call of `affine_map` or `absorb` of a call's layer; adds its results to `values`.

    Raises:
        LayerError: the method fails, or returns a parameter in another shape or dtype.
    """
    layer = call.layer
    assert isinstance(layer, Layer)
    asked = layer.signature.of(method)
    specs = {port: spec_of(bound[port], values) for port in asked}
    with blame(at(call), method):
        observed = observe(layer, method, specs)
    names = result_names(layer, method)
    for port, seen in zip(names, observed, strict=True):
        wanted = specs.get(port)
        if wanted is not None and seen.spec != wanted.on(seen.spec.device):
            raise LayerError(
                f"{at(call)}{method} must return {port!r} as {wanted}, returned {seen.spec}"
            )
        viewed = bound.get(seen.view_of[0]) if seen.view_of else None
        view_of = viewed if isinstance(viewed, str) else None
        result, spec = f"{name}.{port}", seen.spec.on(device)
        values[result] = Value(result, spec, Kind.FOLD, view_of=view_of, node=name, port=port)
    return Call(
        name=name,
        kind=Kind.FOLD,
        layer=layer,
        method=method,
        args=tuple(bound[port] for port in asked),
        results=tuple(f"{name}.{port}" for port in names),
        title=call.title,
        node=call.node,
        where=call.where,
    )


def of_values(
    xs: tuple[str, ...],
    layer: Layer,
    name: str,
    result: str,
    title: str,
    *,
    calls: dict[str, Call],
    values: dict[str, Value],
) -> str:
    """Add a call of a layer that reads values; its result is one number.

    The number has float32, or the widest dtype of the values. Returns its name, `result`.
    """
    specs = [values[x].spec for x in xs]
    values[result] = Value(result, Spec((), widest(specs), specs[0].device), Kind.SCALE)
    calls[name] = Call(name, Kind.SCALE, layer, "forward", (xs,), (result,), title, name)
    return result


def widest(specs: Iterable[Spec]) -> torch.dtype:
    """float32, or the widest dtype of the specs."""
    return functools.reduce(torch.promote_types, (one.dtype for one in specs), torch.float32)


def multiplied(
    gradients: Mapping[str, str],
    factor: str,
    title: str,
    result: str,
    *,
    calls: dict[str, Call],
    values: dict[str, Value],
) -> dict[str, str]:
    """Multiply each gradient by a factor; returns parameter -> product."""
    found: dict[str, str] = {}
    for parameter, gradient in gradients.items():
        call, of = f"{parameter}:{title}", values[parameter]
        product = of.sibling(f":{result}", Kind.SCALE, values[gradient].spec)
        product = replace(product, sharding=values[gradient].sharding)
        found[parameter] = product.name
        values[product.name] = product
        calls[call] = Call(
            name=call,
            kind=Kind.SCALE,
            layer=Scaled(),
            method="forward",
            args=(gradient, factor),
            results=(product.name,),
            title=title,
            node=of.node,
            port=f"{of.port}:{title}",
        )
    return found


def at(call: Call) -> str:
    """The place of a call in the description, as the beginning of a message."""
    return f"{f'{call.where}: ' if call.where else ''}node {call.node!r} ({call.title}): "


def add_cast(
    source: str, name: str, dtype: DType, *, calls: dict[str, Call], values: dict[str, Value]
) -> str:
    """Add a cast of a value, unless a call of this name exists already; returns the name of its result."""
    result = f"{name}.y"
    if name not in calls:
        value = values[source]
        spec = replace(value.spec, dtype=DTYPES[dtype])
        values[result] = Value(
            result,
            spec,
            Kind.LAYER,
            layout=value.layout,
            node=name,
            port="y",
            of=source,
            sharding=value.sharding,
        )
        calls[name] = Call(
            name=name,
            kind=Kind.LAYER,
            layer=Cast(dtype=dtype),
            method="forward",
            args=(source,),
            results=(result,),
            title="cast",
            node=name,
        )
    return result


def cast_to(
    of: Value, source: str, name: str, *, calls: dict[str, Call], values: dict[str, Value]
) -> str:
    """Add a cast of a gradient to the dtype of its parameter, if it has another; returns its name."""
    if values[source].spec.dtype == of.spec.dtype:
        return source
    return add_cast(source, name, dtype_of_value(of), calls=calls, values=values)


def dtype_of_value(value: Value) -> DType:
    """The name of a value's dtype, such as "float32"."""
    return next(name for name, dtype in DTYPES.items() if dtype == value.spec.dtype)


def write(
    values: dict[str, Value],
    rule: Definition,
    title: str,
    args: tuple[Arg, ...],
    slots: tuple[str, ...],
    node: str,
) -> Call:
    """A call of a rule's `update` that writes the slots; adds the written values, `slot:next`.

    It may write a value of this step in the place of a slot: the new value then has the kind of that one.
    """
    written = [written_value(values, slot) for slot in slots]
    first = values[slots[0]]
    return Call(
        name=f"{slots[0]}:update",
        kind=Kind.UPDATE,
        layer=rule,
        method="update",
        args=args,
        results=tuple(new.name for new in written),
        title=title,
        node=node,
        writes={new.name: new.of for new in written},
        port=f"{first.port or first.name}:update",
    )


def written_value(values: dict[str, Value], slot: str) -> Value:
    """Add the value that an update writes into a slot, `slot:next`."""
    of = values[slot]
    kind = Kind.UPDATE if of.kind in SLOTS else of.kind
    new = replace(of.sibling(":next", kind, of.spec), view_of=slot, sharding=of.sharding)
    values[new.name] = new
    return new


def before_cast(name: str, graph: Graph) -> str | None:
    """The value of which a value is the cast; None if it is no result of a cast."""
    call = graph.producers.get(name)
    return next(call.reads()) if call is not None and isinstance(call.layer, Cast) else None


def beside(
    values: dict[str, Value],
    parameter: str,
    state: str,
    spec: StateSpec,
    *,
    role: str = "",
    sharding: Sharding | None = None,
) -> str:
    """Add a slot that belongs to a parameter and has its strides; returns the slot's name.

    Its role is `state`, the end of its name, unless another one is given. With a sharding, the slot holds
    this process's shard.
    """
    of = values[parameter]
    shape = Spec(spec.shape, spec.dtype or of.spec.dtype, of.spec.device)
    slot = replace(
        of.sibling(f":{state}", Kind.STATE, shape),
        initializer=spec.initializer,
        memory_format=of.memory_format if sharding is None else None,
        role=role or state,
        sharding=sharding,
    )
    values[slot.name] = slot
    return slot.name


def scalar(values: dict[str, Value], name: str, like: Spec) -> str:
    """Add one of the 0-dim tensors that drive a step, unless it exists already; returns its name."""
    values.setdefault(name, Value(name, replace(like, shape=()), Kind.SCALAR))
    return name

"""Invoke: call a method of a layer by the names of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphnet.sdk import Definition, Layer


def bind_arguments(
    layer: Definition, method: str, arguments: Sequence[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of a call: `*xs` is spread out, what follows goes by keyword."""
    form = method.removesuffix("_")  # the method that works in place takes the same arguments
    if not isinstance(layer, Layer) or form == "backward" or layer.signature.variadic is None:
        return list(arguments), {}
    names: tuple[str, ...] = getattr(layer.signature, form)
    if layer.signature.variadic not in names:
        return list(arguments), {}
    star = names.index(layer.signature.variadic)
    after = dict(zip(names[star + 1 :], arguments[star + 1 :], strict=True))
    return [*arguments[:star], *arguments[star]], after


def call_by_name(layer: Layer, method: str, values: Mapping[str, Any]) -> Any:
    """Call forward or inference: names before `*xs` by position, those after it by keyword."""
    function = getattr(layer, method)
    variadic = layer.signature.variadic
    if variadic is None or variadic not in values:
        return function(**values)
    names = list(values)
    before = names[: names.index(variadic)]
    after = names[names.index(variadic) + 1 :]
    return function(
        *(values[name] for name in before),
        *values[variadic],
        **{name: values[name] for name in after},
    )


def as_tuple(returned: Any) -> tuple[Any, ...]:
    """A bare result as a tuple of one."""
    return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)

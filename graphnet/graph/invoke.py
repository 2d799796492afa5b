"""Invoke: call a layer's method with arguments by name or by position; all rooms use these functions.

Methods other than backward take `*xs` as separate arguments, and the arguments after it by keyword.
Backward takes `*xs` as one tuple, and returns one tuple of gradients for it. The results are always
returned as a tuple.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphnet.sdk import AFFINE, IN_PLACE, Definition, Layer

_REVERSE = ("backward", IN_PLACE["backward"])


def invoke(layer: Layer, method: str, named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Call a method with the values that its arguments name; returns the results in order.

    `backward` has one result for each of `gradient_names`. For the backward of a layer with `*xs`, `named`
    must contain "specs", which say which arguments of forward are states.
    """
    arguments = [named[name] for name in layer.signature.of(method)]
    returned = _called(layer, method, arguments)
    starred = method in _REVERSE and layer.signature.variadic is not None
    return (
        (returned,) if starred and gradients_are_bare(layer, named["specs"]) else as_tuple(returned)
    )


def positional(layer: Definition, method: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Call a method of a layer or rule with arguments by position; `*xs` is one tuple.

    The results match `Call.results`: if only `*xs` has gradients, each of them is one result.
    """
    return as_tuple(_called(layer, method, arguments))


def _called(layer: Definition, method: str, arguments: Sequence[Any]) -> Any:
    function = getattr(layer, method)
    star = star_of(layer, method)
    if star is None:
        return function(*arguments)
    assert isinstance(layer, Layer)
    after = layer.signature.of(method)[star + 1 :]
    named = dict(zip(after, arguments[star + 1 :], strict=True))
    return function(*arguments[:star], *arguments[star], **named)


def star_of(layer: Definition, method: str) -> int | None:
    """The position of `*xs` in a method that takes it as separate arguments; otherwise None."""
    if not isinstance(layer, Layer) or layer.signature.variadic is None or method in _REVERSE:
        return None
    names = layer.signature.of(method)
    return names.index(layer.signature.variadic) if layer.signature.variadic in names else None


def gradients_are_bare(layer: Layer, specs: Mapping[str, Any]) -> bool:
    """Whether only `*xs` has gradients: then backward returns nothing but their tuple."""
    return gradient_names(layer, specs) == (layer.signature.variadic,)


def gradient_names(layer: Layer, specs: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments with a gradient in backward: inputs and parameters, in the order of forward."""
    states = frozenset(layer.updates) | frozenset(layer.states(specs))
    return tuple(n for n in layer.signature.tensors if n in specs and n not in states)


def result_names(layer: Layer, method: str) -> tuple[str, ...]:
    """The names of the results of a method other than backward; a new state has the state's name."""
    match method:
        case "forward":
            return layer.outputs + layer.saves + layer.updates
        case "inference":
            return layer.outputs
        case "affine_map":
            return AFFINE
    return tuple(name for name in layer.signature.absorb if name not in AFFINE)


def as_tuple(returned: Any) -> tuple[Any, ...]:
    """The results as a tuple; a single result becomes a tuple of one."""
    return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)

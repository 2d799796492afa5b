"""Invoke: the one way to call a layer's method, by the names of its arguments or by their order.

Every method but backward takes `*xs` spread out, and what follows it by keyword; backward takes it as one
tuple, and returns one for it. What a method returns comes as a tuple, a bare result as a tuple of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphnet.sdk import AFFINE, IN_PLACE, Definition, Layer

_REVERSE = ("backward", IN_PLACE["backward"])


def invoke(layer: Layer, method: str, named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Call a method with those of the named values that it asks for; its results in order.

    backward has a result for each of `gradient_names`. For that of a layer with `*xs`, `named` holds
    "specs" even where backward does not ask for them: they tell which of forward's arguments are states.
    """
    arguments = [named[name] for name in layer.signature.of(method)]
    returned = _called(layer, method, arguments)
    starred = method in _REVERSE and layer.signature.variadic is not None
    return (
        (returned,) if starred and gradients_are_bare(layer, named["specs"]) else as_tuple(returned)
    )


def positional(layer: Definition, method: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Call a method of a layer or rule with arguments in its order, those of `*xs` in a tuple.

    The results are those of `Call.results`: where the gradients of `*xs` come bare, each is one.
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
    """The position of `*xs` among the arguments of a method that takes it spread out, else None."""
    if not isinstance(layer, Layer) or layer.signature.variadic is None or method in _REVERSE:
        return None
    names = layer.signature.of(method)
    return names.index(layer.signature.variadic) if layer.signature.variadic in names else None


def gradients_are_bare(layer: Layer, specs: Mapping[str, Any]) -> bool:
    """Whether `*xs` alone has gradients: then their tuple is all that backward returns."""
    return gradient_names(layer, specs) == (layer.signature.variadic,)


def gradient_names(layer: Layer, specs: Mapping[str, Any]) -> tuple[str, ...]:
    """The names backward returns gradients for: inputs and parameters, in forward's order."""
    states = frozenset(layer.updates) | frozenset(layer.states(specs))
    return tuple(n for n in layer.signature.tensors if n in specs and n not in states)


def result_names(layer: Layer, method: str) -> tuple[str, ...]:
    """What a method other than backward returns, in order; a new state has the state's name."""
    match method:
        case "forward":
            return layer.outputs + layer.saves + layer.updates
        case "inference":
            return layer.outputs
        case "affine_map":
            return AFFINE
    return tuple(name for name in layer.signature.absorb if name not in AFFINE)


def as_tuple(returned: Any) -> tuple[Any, ...]:
    """A bare result as a tuple of one."""
    return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)

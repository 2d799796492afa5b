"""Observe: run a layer on meta tensors to learn the shapes, dtypes and views of its results.

The author of a layer declares nothing for this, and no data is read. Observations are cached: definitions
and specs compare by value, so a repeated block is observed once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import GraphError, GraphnetError, InputError, LayerError, nearest
from graphnet.graph.dispatch import storage_of
from graphnet.graph.invoke import as_tuple, gradient_names, invoke, result_names
from graphnet.graph.ir import Arg
from graphnet.sdk import FLOATING, Layer, ParameterSpec, Spec, StateSpec, not_floating

META = torch.device("meta")
KEY_SPEC = Spec((2,), torch.int32)

Bound = Spec | tuple[Spec, ...] | None
"""The spec of an argument: of one tensor, of the tensors of `*xs`, or None if it is absent."""

Gradient = Spec | float | None
"""The spec of an output's gradient; 1.0 if it is this number, None if nobody uses the output."""


def bound_on(bound: Bound, device: torch.device) -> Bound:
    """The same on another device."""
    if isinstance(bound, tuple):
        return tuple(spec.on(device) for spec in bound)
    return None if bound is None else bound.on(device)


@dataclass(frozen=True)
class Ports:
    """The arguments of forward: which are inputs, parameters and states, and their specs."""

    inputs: tuple[str, ...]
    parameters: Mapping[str, ParameterSpec | None]
    states: Mapping[str, StateSpec]
    specs: Mapping[str, Bound]


@dataclass(frozen=True)
class Result:
    """A tensor that a layer returned, and the argument whose storage it shares, if any.

    `view_of` names the argument and, for one inside a tuple, its position there.
    """

    spec: Spec
    view_of: tuple[str, int] | None


def bind_inputs(layer: Layer, inputs: Sequence[Spec], dtype: torch.dtype) -> Ports:
    """Assign the inputs to the first arguments of forward, and get the layer's parameters and states.

    Raises:
        GraphError: the layer takes another number of inputs.
        InputError: an input is not of floating point, and the layer does not list it as nondifferentiable.
    """
    return _bind_inputs(layer, tuple(spec.on(META) for spec in inputs), dtype)


@functools.lru_cache(maxsize=65536)
def _bind_inputs(layer: Layer, inputs: tuple[Spec, ...], dtype: torch.dtype) -> Ports:
    signature = layer.signature
    names = signature.tensors
    specs: dict[str, Bound] = {}
    if signature.variadic:
        specs[signature.variadic] = inputs
        input_names: tuple[str, ...] = (signature.variadic,)
        if not inputs:
            raise GraphError(f"takes one or more inputs (*{signature.variadic}), got none")
    else:
        specs.update(zip(names, inputs, strict=False))
        input_names = names[: len(inputs)]
    try:
        parameters = dict(layer.parameters(MappingProxyType(specs)))
        states = dict(layer.states(MappingProxyType(specs)))
    except GraphnetError:
        raise
    except KeyError as error:
        if error.args and error.args[0] in names:
            raise GraphError(
                f"needs an input for {error.args[0]!r} (forward takes {', '.join(names)}), "
                f"got {len(inputs)} inputs"
            ) from None
        raise
    for kind, stated in (("parameters", parameters), ("states", states)):
        for name in stated:
            if name not in names:
                others = [n for n in names if n not in parameters and n not in states]
                raise LayerError(
                    f"{type(layer).__name__}.{kind} states {name!r}, which forward does not name: it takes "
                    f"{', '.join(names)}. {nearest(name, others)}"
                )
    expected = tuple(n for n in names if n not in parameters and n not in states)
    if expected != input_names or (not signature.variadic and len(inputs) != len(expected)):
        raise GraphError(
            f"takes {len(expected)} inputs ({', '.join(expected) or 'none'}), got {len(inputs)}"
        )
    for position, spec in enumerate(inputs):
        name = signature.variadic or names[position]
        if spec.dtype not in FLOATING and name not in layer.nondifferentiable:
            refusal = not_floating(spec, f"input {name!r}")
            if spec.dtype == torch.uint8:  # an image
                raise refusal
            raise InputError(f"{refusal} A layer lists indices and masks in `nondifferentiable`.")
    for name, parameter in parameters.items():
        specs[name] = None if parameter is None else Spec(parameter.shape, dtype, META)
    for name, state in states.items():
        specs[name] = Spec(state.shape, state.dtype or dtype, META)
    return Ports(
        input_names,
        MappingProxyType(parameters),
        MappingProxyType(states),
        MappingProxyType(specs),
    )


def has_slots(layer: Layer) -> bool:
    """Whether the class of a layer defines parameters or states."""
    cls = type(layer)
    return cls.parameters is not Layer.parameters or cls.states is not Layer.states


def observe(layer: Layer, method: str, specs: Mapping[str, Bound]) -> tuple[Result, ...]:
    """What `forward` (outputs, saves, new states), `inference` (outputs) or another method returns."""
    return _observe(layer, method, _freeze(specs))


def observe_backward(
    layer: Layer,
    specs: Mapping[str, Bound],
    *,
    gradients: Mapping[str, Gradient],
    wanted: frozenset[str],
) -> tuple[Result | tuple[Result | None, ...] | None, ...]:
    """What backward returns: a Result or None for each input and parameter, a tuple for `*xs`."""
    on_meta = tuple(
        (name, one.on(META) if isinstance(one, Spec) else one) for name, one in gradients.items()
    )
    return _observe_backward(layer, _freeze(specs), on_meta, wanted)


Frozen = tuple[tuple[str, Bound], ...]


def _freeze(specs: Mapping[str, Any]) -> Frozen:
    return tuple((name, bound_on(bound, META)) for name, bound in specs.items())


@functools.lru_cache(maxsize=65536)
def _observe(layer: Layer, method: str, specs: Frozen) -> tuple[Result, ...]:
    bound = dict(specs)
    tensors = {name: _tensors(spec) for name, spec in bound.items()}
    values = {**tensors, "key": KEY_SPEC.on(META).empty(), "specs": MappingProxyType(bound)}
    results = invoke(layer, method, values)
    expected = result_names(layer, method)
    if len(results) != len(expected) or not all(isinstance(r, Tensor) for r in results):
        raise LayerError(wrong_results(layer, method, results))
    updates = layer.updates if method == "forward" else ()
    for name, tensor in zip(updates, results[len(results) - len(updates) :], strict=True):
        if Spec.of(tensor) != bound[name]:
            raise LayerError(
                f"forward must return the new {name!r} as {bound[name]}, returned {Spec.of(tensor)}"
            )
    return tuple(Result(Spec.of(tensor), _source(tensor, tensors)) for tensor in results)


@functools.lru_cache(maxsize=65536)
def _observe_backward(
    layer: Layer,
    specs: Frozen,
    gradients: tuple[tuple[str, Gradient], ...],
    wanted: frozenset[str],
) -> tuple[Result | tuple[Result | None, ...] | None, ...]:
    bound = dict(specs)
    tensors = {name: _tensors(spec) for name, spec in specs}
    for name, gradient in gradients:
        tensors[name] = gradient.empty() if isinstance(gradient, Spec) else gradient
    values = {
        **tensors,
        "key": KEY_SPEC.on(META).empty(),
        "specs": MappingProxyType(bound),
        "wanted": wanted,
    }
    results = invoke(layer, "backward", values)
    names = gradient_names(layer, bound)
    if len(results) != len(names):
        raise LayerError(
            f"backward must return {len(names)} gradients ({', '.join(names)}), "
            f"returned {_describe_all(results)}"
        )
    return tuple(
        _gradients(layer, name, result, bound[name], name in wanted, tensors)
        for name, result in zip(names, results, strict=True)
    )


def _gradients(
    layer: Layer, name: str, result: Any, spec: Bound, wanted: bool, tensors: Mapping[str, Any]
) -> Result | tuple[Result | None, ...] | None:
    if isinstance(spec, tuple):
        if not isinstance(result, (tuple, list)) or len(result) != len(spec):
            raise LayerError(
                f"backward must return a tuple of {len(spec)} gradients for '*{name}', "
                f"returned {_describe(result)}"
            )
        return tuple(
            _gradient(f"{name}[{i}]", gradient, one, wanted, tensors)
            for i, (gradient, one) in enumerate(zip(result, spec, strict=True))
        )
    return _gradient(name, result, spec, wanted, tensors)


def _gradient(
    name: str, gradient: Any, spec: Spec | None, wanted: bool, tensors: Mapping[str, Any]
) -> Result | None:
    if gradient is None:
        if wanted:
            raise LayerError(f"backward returned None for {name!r}, whose gradient is wanted")
        return None
    if not isinstance(gradient, Tensor):
        raise LayerError(
            f"backward must return a tensor for {name!r}, returned {_describe(gradient)}"
        )
    if spec is None or tuple(gradient.shape) != spec.shape:
        expected = "None (the parameter is absent)" if spec is None else f"the shape {spec.shape}"
        raise LayerError(
            f"backward must return {expected} for {name!r}, returned {tuple(gradient.shape)}"
        )
    return Result(Spec.of(gradient), _source(gradient, tensors))


def _tensors(bound: Bound) -> Any:
    if isinstance(bound, tuple):
        return tuple(spec.empty() for spec in bound)
    return None if bound is None else bound.empty()


def _source(tensor: Tensor, arguments: Mapping[str, Any]) -> tuple[str, int] | None:
    storage = storage_of(tensor)
    for name, value in arguments.items():
        for position, argument in enumerate(as_tuple(value)):
            if isinstance(argument, Tensor) and storage_of(argument) == storage:
                return name, position
    return None


def wrong_results(layer: Layer, method: str, results: Sequence[Any]) -> str:
    """Say which results a method other than backward must return, and which of them are missing."""
    expected = result_names(layer, method)
    message = (
        f"{method} must return {len(expected)} tensors ({', '.join(expected)}), "
        f"returned {_describe_all(tuple(results))}"
    )
    if len(results) >= len(expected):
        return message
    missing = expected[len(results) :]
    return f"{message}. Missing: {', '.join(_declared(layer, method, name) for name in missing)}"


def _declared(layer: Layer, method: str, name: str) -> str:
    """A result with the declaration that names it."""
    if method != "forward":
        return repr(name)
    lists = {"saves": layer.saves, "updates": layer.updates, "outputs": layer.outputs}
    return f"{name!r}, which `{next(kind for kind, names in lists.items() if name in names)}` names"


def _describe(returned: Any) -> str:
    if isinstance(returned, (tuple, list)):
        return f"{len(returned)} ({', '.join(type(item).__name__ for item in returned)})"
    return type(returned).__name__


def _describe_all(results: tuple[Any, ...]) -> str:
    return _describe(results[0] if len(results) == 1 else results)


def resolve_view(bound: Mapping[str, Arg], source: tuple[str, int] | None) -> str | None:
    """The name of the value at an observed (argument name, position); None if there is none."""
    if source is None or source[0] not in bound:
        return None
    arg = bound[source[0]]
    if isinstance(arg, tuple):
        return arg[source[1]]
    return arg if isinstance(arg, str) else None

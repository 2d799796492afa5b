"""Signature: the arguments that a layer's methods ask for, read off once, when the class is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphnet.errors import ContractError, nearest

RESERVED = frozenset({"key", "specs", "wanted"})
IN_PLACE = {
    "forward": "forward_",
    "backward": "backward_",
}  # a method -> its twin that works in place
_PURE = {twin: method for method, twin in IN_PLACE.items()}
AFFINE = ("scale", "shift")  # what affine_map returns, and absorb takes


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of the arguments that a layer's methods ask for, read once, when the class is made.

    Attributes:
        forward, backward, inference, affine_map, absorb: the names of that method's arguments, in order.
        variadic: the name of forward's argument with a star, or None.
        optional: the arguments of backward that may arrive as None: gradients of unused outputs.
        ones: the arguments of backward that may arrive as the number 1.0: the gradient of a loss from which
            the reverse pass starts.

    >>> from graphnet.sdk import Layer
    >>> class Double(Layer):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> Double.signature.of("forward")
    ('x',)
    """

    forward: tuple[str, ...]
    backward: tuple[str, ...]
    inference: tuple[str, ...]
    variadic: str | None
    optional: frozenset[str]
    ones: frozenset[str] = frozenset()
    affine_map: tuple[str, ...] = ()
    absorb: tuple[str, ...] = ()

    def of(self, method: str) -> tuple[str, ...]:
        """The names of a method's arguments, in order; `forward_` takes those of forward."""
        names: tuple[str, ...] = getattr(self, _PURE.get(method, method))
        return names

    @property
    def tensors(self) -> tuple[str, ...]:
        """Forward's arguments that carry tensors: inputs, parameters and states."""
        return tuple(name for name in self.forward if name not in RESERVED)


def read_signature(cls: type[Any], base: type[Any]) -> Signature:
    """Read the signature of a layer's class.

    Args:
        cls: the class.
        base: Layer, whose own methods count as not defined.

    Raises:
        ContractError: a method asks for an argument that it cannot get, or a declaration names something that
            is no input, output or save of the layer.
    """
    forward = _arguments(cls, base, "forward", cls.forward)
    for name, parameter in forward.items():
        if parameter.default is not parameter.empty:
            raise ContractError(
                f"{cls.__name__}.forward: {name!r} has a default; an absent optional parameter "
                f"arrives as None, so state it without one"
            )
    if len(set(cls.outputs + cls.saves)) != len(cls.outputs + cls.saves) or not cls.outputs:
        raise ContractError(
            f"{cls.__name__}: outputs {cls.outputs} and saves {cls.saves} need different names, "
            f"and at least one output"
        )
    for declared in ("updates", "nondifferentiable"):
        for name in getattr(cls, declared):
            if name not in forward:
                raise ContractError(
                    f"{cls.__name__}.{declared} names {name!r}, which forward does not take. "
                    f"{nearest(name, forward)}"
                )
    for name in cls.kept:
        if name not in (known := {*forward, *cls.outputs, *cls.saves} - RESERVED):
            raise ContractError(
                f"{cls.__name__}.kept names {name!r}, which is no input, output or save of this layer. "
                f"{nearest(name, known)}"
            )
    if "wanted" in forward:
        raise ContractError(f"{cls.__name__}.forward names 'wanted', which only backward is given")

    inference = _arguments(cls, base, "inference", cls.inference)
    for name in inference:
        if name not in forward or name == "key":
            raise ContractError(
                f"{cls.__name__}.inference names {name!r}, which forward does not take "
                f"(inference has no key)"
            )

    backward = _arguments(cls, base, "backward", cls.backward)
    gradients = {f"grad_{output}" for output in cls.outputs}
    known = {*forward, *cls.outputs, *cls.saves, *gradients, *RESERVED} - set(cls.updates)
    for name, parameter in backward.items():
        if name not in known:
            raise ContractError(
                f"{cls.__name__}.backward names {name!r}, which is no gradient, input, parameter, "
                f"output or save of this layer. {nearest(name, known)}"
            )
        given = parameter.default
        if given is not parameter.empty and not (name in gradients and given in (None, 1.0)):
            raise ContractError(
                f"{cls.__name__}.backward: only a gradient may have a default, and only None (for an output "
                f"that nobody uses) or 1.0 (for a loss that is the whole loss); found {name}={given!r}"
            )
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ContractError(
                f"{cls.__name__}.backward: '*{name}' must be written {name!r}; it arrives as a tuple"
            )
    variadic = [n for n, p in forward.items() if p.kind is p.VAR_POSITIONAL]
    affine_map, absorb = (
        tuple(_arguments(cls, base, n, getattr(cls, n))) for n in ("affine_map", "absorb")
    )
    _check_folding(cls, tuple(forward), affine_map, absorb)
    return Signature(
        forward=tuple(forward),
        backward=tuple(backward),
        inference=tuple(inference),
        variadic=variadic[0] if variadic else None,
        optional=frozenset(n for n, p in backward.items() if p.default is None),
        ones=frozenset(n for n, p in backward.items() if p.default == 1.0),
        affine_map=affine_map,
        absorb=absorb,
    )


def _check_folding(
    cls: type[Any], forward: tuple[str, ...], affine_map: tuple[str, ...], absorb: tuple[str, ...]
) -> None:
    slots = [name for name in forward[1:] if name not in RESERVED]
    if (affine_map or absorb) and len(cls.outputs) != 1:
        raise ContractError(
            f"{cls.__name__}: a layer to be folded has one output, not {cls.outputs}"
        )
    if absorb and (absorb[-2:] != AFFINE or len(absorb) < 3):
        raise ContractError(
            f"{cls.__name__}.absorb must take parameters, then scale and shift; found {absorb}"
        )
    for method, names in (("affine_map", affine_map), ("absorb", absorb[:-2])):
        for name in names:
            if name not in slots:
                raise ContractError(
                    f"{cls.__name__}.{method} names {name!r}, which is no parameter or state that "
                    f"forward takes. {nearest(name, slots)}"
                )


def check_overwrites(cls: type[Any], base: type[Any]) -> None:
    """Check that `overwrites` fits the methods that work in place, `forward_` and `backward_`.

    Raises:
        ContractError: it names a result or an argument that does not exist, or a method takes other
            arguments.
    """
    signature = cls.signature
    declared: dict[str, list[str]] = {"forward": [], "backward": []}
    for result, argument in cls.overwrites.items():
        gradient = result.removeprefix("grad_")
        if result in cls.outputs + cls.saves:
            method = "forward"
        elif gradient != result and gradient in set(signature.tensors) - {signature.variadic}:
            method = "backward"
        else:
            known = [*cls.outputs, *cls.saves, *(f"grad_{name}" for name in signature.tensors)]
            raise ContractError(
                f"{cls.__name__}.overwrites names {result!r}, which is no result of this layer that "
                f"can overwrite. {nearest(result, known)}"
            )
        known = [name for name in signature.of(method) if name not in RESERVED]
        if argument not in known:
            raise ContractError(
                f"{cls.__name__}.overwrites: {result!r} cannot overwrite {argument!r}, which "
                f"{method} does not take. {nearest(argument, known)}"
            )
        declared[method].append(result)
    for method, results in declared.items():
        expected = signature.of(method) if results else ()
        twin = IN_PLACE[method]
        found = tuple(_arguments(cls, base, twin, getattr(cls, twin)))
        if found != expected and (results or "overwrites" in vars(cls)):
            raise ContractError(
                f"{cls.__name__}: expected {twin}({', '.join(expected)}), which writes "
                f"{', '.join(results)} in place, found {twin}({', '.join(found)})"
                if results
                else f"{cls.__name__} defines {twin}, but `overwrites` names nothing that it writes"
            )


def _arguments(
    cls: type[Any], base: type[Any], method: str, function: Callable[..., Any]
) -> dict[str, inspect.Parameter]:
    if function is getattr(base, method):
        return {}  # not defined by this layer
    if not callable(function):
        raise ContractError(f"{cls.__name__}.{method} must be a method; found {function!r}")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].name != "self":
        raise ContractError(f"{cls.__name__}.{method} must take self as its first argument")
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            raise ContractError(
                f"{cls.__name__}.{method} takes '**{parameter.name}'; arguments are asked for by "
                f"name, so write the names out"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ContractError(
                f"{cls.__name__}.{method}: {parameter.name!r} is positional-only; write it without '/'"
            )
    return {parameter.name: parameter for parameter in parameters[1:]}

"""Kernel: another way to compute an expression of layers, and the pattern of that expression."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from graphnet.errors import ContractError, nearest
from graphnet.sdk.layer import Layer
from graphnet.sdk.spec import Spec


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a graph where a kernel's pattern fits, as `Kernel.match` sees it.

    Attributes:
        layers: the definitions in the pattern, outermost first.
        specs: the spec of each name in the pattern; None for an absent optional parameter.
        device: the device on which the kernel would run.
        data: the names of the inputs that depend on no parameter, so that nobody needs their gradients.

    >>> from graphnet.builtin import ReLU
    >>> site = Site((ReLU(),), {"x": Spec((2, 3, 8, 8))}, torch.device("cpu"))
    >>> site.specs["x"].shape
    (2, 3, 8, 8)
    >>> site.layers, site.data  # x depends on parameters: its gradient is wanted
    ((ReLU(),), frozenset())
    """

    layers: tuple[Layer, ...]
    specs: Mapping[str, Spec | None]
    device: torch.device
    data: frozenset[str] = frozenset()


class Kernel(Layer):
    """Another way to compute an expression of layers, with its own backward.

    Attributes:
        replaces: the expression, such as "conv2d(x, weight, bias)" or "relu(conv2d(x, weight, bias))". A
            layer that takes `*xs` is written with as many arguments as the kernel takes, such as
            "add(skip, conv2d(x, w, b))". `chain(x, *parameters)` stands for any sequence of layers with one
            input each, which starts at x; `parameters` are those that exist, in the order of their use, such
            as "mse(chain(x, *parameters), target)".
        pattern: `replaces` as nested tuples, parsed once, when the class is made.
        priority: of several kernels that replace equally many layers, the one with the highest priority is
            tried first.
        casts: the names of inputs that the kernel takes in a wider dtype too, and rounds itself. If they are
            data, the plan then has no casts of them. `match` sees them as they are after the cast.

    Raises:
        ContractError: when the class is made, if `replaces` is no such expression, or `casts` names no input.

    >>> class FastSigmoid(Kernel):
    ...     replaces = "sigmoid(x)"
    ...     priority = 1
    ...     casts = ()  # x must have the dtype in which the plan computes
    ...
    ...     @classmethod
    ...     def match(cls, site):
    ...         return cls() if site.device.type == "cuda" else None
    ...
    ...     def forward(self, x):
    ...         return torch.sigmoid(x)
    ...
    ...     def backward(self, grad_y, y):
    ...         return grad_y * y * (1 - y)
    >>> FastSigmoid.pattern
    ('sigmoid', 'x')
    """

    replaces: ClassVar[str]
    priority: ClassVar[int] = 0
    casts: ClassVar[tuple[str, ...]] = ()
    pattern: ClassVar[tuple[Any, ...]]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        """The kernel for a place where the pattern fits, or None to leave that place alone.

        If the pattern has a chain, graphnet tries the longest sequence of layers first.
        """
        raise ContractError(f"{cls.__name__} defines no match(site)")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_priority(cls, cls.priority)
        for name in cls.casts:
            if name not in cls.signature.tensors:
                raise ContractError(
                    f"{cls.__name__}.casts names {name!r}, which forward does not take. "
                    f"{nearest(name, cls.signature.tensors)}"
                )
        if "replaces" in vars(cls):  # else a base that leaves the pattern to its subclasses
            cls.pattern = parse_pattern(cls)


def check_priority(cls: type, priority: object) -> None:
    """Raise ContractError unless the priority of a kernel is a whole number: kernels are sorted by it."""
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise ContractError(f"{cls.__name__}.priority must be a whole number, found {priority!r}")


Pattern = str | tuple[Any, ...]
"""A name, or a tuple of a layer's name and its arguments' patterns; a chain is (CHAIN, x, parameters)."""
CHAIN = "chain"


def layer_names(pattern: Pattern) -> Iterator[str]:
    """The names of the layers in a pattern, outermost first, without those of a chain.

    >>> list(layer_names(("relu", ("conv2d", "x", "weight", "bias"))))
    ['relu', 'conv2d']
    """
    if not isinstance(pattern, str):
        if pattern[0] != CHAIN:
            yield pattern[0]
        for part in pattern[1:]:
            yield from layer_names(part)


def has_chain(pattern: Pattern) -> bool:
    """Whether there is a chain in a pattern.

    >>> has_chain(("mse", (CHAIN, "x", "parameters"), "target"))
    True
    """
    return not isinstance(pattern, str) and (
        pattern[0] == CHAIN or any(map(has_chain, pattern[1:]))
    )


def parse_pattern(kernel: type[Kernel]) -> tuple[Any, ...]:
    """The expression that a kernel replaces, as a pattern: ("relu", ("conv2d", "x", "weight", "bias")).

    The pattern has the `*parameters` of a chain without the star. In the expression, a namespaced layer has a
    dot in place of the slash, "acme.swish(x)"; in the pattern it has its own name, "acme/swish".

    Raises:
        ContractError: `replaces` is missing, or no expression of layer names and arguments.
    """

    def walk(node: ast.expr) -> Pattern:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Call(
                func=ast.Name(id=name),
                args=[ast.Name(id=x), ast.Starred(value=ast.Name(id=parameters))],
                keywords=[],
            ) if name == CHAIN:
                return (CHAIN, x, parameters)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name != CHAIN:
                return (name, *map(walk, arguments))
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=space), attr=name), args=arguments, keywords=[]
            ):
                return (f"{space}/{name}", *map(walk, arguments))
        raise ContractError(
            f"{kernel.__name__}.replaces must be an expression of layer names and arguments, such as "
            f"'relu(conv2d(x, weight, bias))' or 'mse(chain(x, *parameters), target)'; "
            f"found {getattr(kernel, 'replaces', None)!r}"
        )

    try:
        pattern = walk(ast.parse(kernel.replaces, mode="eval").body)
    except (SyntaxError, AttributeError):
        pattern = ""
    if isinstance(pattern, str) or pattern[0] == CHAIN:
        raise ContractError(
            f"{kernel.__name__}.replaces must be an expression such as 'conv2d(x, weight, bias)'; "
            f"found {getattr(kernel, 'replaces', None)!r}"
        )
    return pattern

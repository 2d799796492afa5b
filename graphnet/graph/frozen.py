"""Frozen: the arguments of a call as data that can be hashed, and meta tensors made of it again.

What is found out about a call on meta tensors depends on these, its definition and its method only, so it
is cached by them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from graphnet.graph.ir import SLOTS, Arg, Call, Const, Value
from graphnet.graph.observe import META
from graphnet.sdk import Spec


@dataclass(frozen=True, slots=True)
class FrozenTensor:
    """A tensor: equal numbers are one that is given twice. A slot has the strides it is stored with."""

    number: int
    spec: Spec
    memory_format: torch.memory_format | None


@dataclass(frozen=True, slots=True)
class FrozenMapping:
    """The items of a mapping."""

    items: tuple[tuple[str, Hashable], ...]


FrozenArgument = FrozenTensor | tuple[FrozenTensor, ...] | FrozenMapping | Const


def freeze(call: Call, values: Mapping[str, Value]) -> tuple[FrozenArgument, ...]:
    """The arguments of a call, whose values' specs are looked up in `values`."""
    numbers: dict[str, int] = {}

    def tensor(name: str) -> FrozenTensor:
        value = values[name]
        stored = value.memory_format if value.kind in SLOTS else None
        return FrozenTensor(numbers.setdefault(name, len(numbers)), value.spec.on(META), stored)

    def argument(arg: Arg) -> FrozenArgument:
        match arg:
            case str():
                return tensor(arg)
            case tuple():
                return tuple(map(tensor, arg))
            case Const(value=Mapping() as mapping):
                return FrozenMapping(tuple(mapping.items()))
            case Const():
                return arg

    return tuple(map(argument, call.args))


def thaw(
    arguments: tuple[FrozenArgument, ...], tensor: Callable[[FrozenTensor], Tensor]
) -> list[Any]:
    """The arguments as a method takes them, each tensor as `tensor` makes it."""

    def argument(frozen: FrozenArgument) -> Any:
        match frozen:
            case FrozenTensor():
                return tensor(frozen)
            case tuple():
                return tuple(map(tensor, frozen))
            case FrozenMapping(items):
                return MappingProxyType(dict(items))
            case Const(value):
                return value

    return list(map(argument, arguments))

"""Frozen: turn the arguments of a call into data that can be hashed, and back into tensors.

The result of a call on meta tensors depends only on its definition, its method and these data, so they are
the key of its cache.
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
    """A tensor argument. Equal numbers mean the same tensor; a slot has the strides of its storage."""

    number: int
    spec: Spec
    memory_format: torch.memory_format | None


@dataclass(frozen=True, slots=True)
class FrozenMapping:
    """A mapping argument, as its items."""

    items: tuple[tuple[str, Hashable], ...]


FrozenArgument = FrozenTensor | tuple[FrozenTensor, ...] | FrozenMapping | Const


def freeze(call: Call, values: Mapping[str, Value]) -> tuple[FrozenArgument, ...]:
    """The frozen arguments of a call; `values` is the graph's table of values."""
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
    """The arguments as a method takes them; `tensor` makes the tensors."""

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

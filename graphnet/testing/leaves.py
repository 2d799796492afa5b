"""Leaves: the single tensors of named arguments; those of `*xs` are named xs[0], xs[1]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from graphnet.sdk import Spec

Named = dict[str, Any]
"""Argument name -> a tensor, a tuple of tensors for `*xs`, or None for an absent parameter."""


def leaves(named: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of these arguments, by default of all; absent ones are left out."""
    found: dict[str, Tensor] = {}
    for name in named if names is None else names:
        value = named[name]
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, (tuple, list)):
            found |= {f"{name}[{i}]": t for i, t in enumerate(value) if isinstance(t, Tensor)}
    return found


def floating(named: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the leaves of floating point, which can have a gradient."""
    return {leaf: t for leaf, t in leaves(named, names).items() if t.is_floating_point()}


def replaced(named: Mapping[str, Any], changes: Mapping[str, Tensor]) -> Named:
    """Copy the mapping with other tensors for some leaves."""
    result = dict(named)
    for leaf, tensor in changes.items():
        name, _, position = leaf.partition("[")
        if position:
            parts = list(result[name])
            parts[int(position.rstrip("]"))] = tensor
            result[name] = tuple(parts)
        else:
            result[name] = tensor
    return result


def cloned(named: Mapping[str, Any]) -> Named:
    """Copy the mapping and every leaf, with the same strides."""
    return replaced(named, {leaf: tensor.clone() for leaf, tensor in leaves(named).items()})


def converted(named: Mapping[str, Any], dtype: torch.dtype) -> Named:
    """Copy the mapping, and convert the leaves of floating point to this dtype."""
    return replaced(named, {leaf: tensor.to(dtype) for leaf, tensor in floating(named).items()})


def source_of(tensor: Tensor, arguments: Mapping[str, Any]) -> str | None:
    """Return the name of the leaf whose storage a tensor shares; None if there is none."""
    for leaf, argument in leaves(arguments).items():
        if argument.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            return leaf
    return None


def specs_of(named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the argument `specs` that belongs to these tensors."""

    def spec(value: Any) -> Any:
        if isinstance(value, Tensor):
            return Spec(tuple(value.shape), value.dtype, value.device)
        return tuple(map(spec, value)) if isinstance(value, (tuple, list)) else None

    return MappingProxyType({name: spec(value) for name, value in named.items() if name != "key"})

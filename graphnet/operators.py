"""Operators of our own: registered with torch, so that its compiler takes them as they stand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Those of x, weight and bias."""

ARITHMETIC = {  # what C++ computes in, by the dtype in memory
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float64,
}


def register(
    schema: str,
    compute: Callable[..., Any],
    shapes: Callable[..., Any],
    *,
    namespace: str = "graphnet",
    devices: Sequence[str] = ("CPU",),
) -> Any:
    """Register torch.ops.NAMESPACE.NAME; `shapes` makes the results' shapes where there is no data.

    Autograd does not see through it: its results are constants to torch.
    """
    name = schema.partition("(")[0]
    library = _library(namespace)
    library.define(schema, tags=torch.Tag.pt2_compliant_tag)
    for device in devices:
        library.impl(name, compute, device)
    library.impl(name, shapes, "Meta")
    library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    return getattr(getattr(torch.ops, namespace), name)


@functools.cache
def _library(namespace: str) -> Any:
    return torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]


def no_results(*_: Any, **__: Any) -> None:
    """The shapes of an operator that only writes into its arguments: nothing is made."""


def only(wanted: frozenset[str], made: Gradients) -> Gradients:
    """The gradients of x, weight and bias that are wanted, of those that an operator computed."""
    grad_x, grad_weight, grad_bias = made
    return (
        grad_x if "x" in wanted else None,
        grad_weight if "weight" in wanted else None,
        grad_bias if "bias" in wanted else None,
    )

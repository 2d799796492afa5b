"""Operators of our own: registered with torch, so that its compiler takes them as they stand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
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

_scratch: dict[Any, Callable[..., Iterable[Tensor]]] = {}


def register_operator(
    schema: str,
    compute: Callable[..., Any],
    shapes: Callable[..., Any],
    *,
    namespace: str = "graphnet",
    devices: Sequence[str] = ("CPU",),
    scratch: Callable[..., Iterable[Tensor]] | None = None,
) -> Any:
    """Register torch.ops.NAMESPACE.NAME; `shapes` makes the results' shapes where there is no data.

    `scratch` makes the tensors that `compute` needs on the way beside its results, so that a plan's memory
    counts them. Autograd does not see through the operator: its results are constants to torch.
    """
    name = schema.partition("(")[0]
    library = _library(namespace)
    library.define(schema, tags=torch.Tag.pt2_compliant_tag)
    for device in devices:
        library.impl(name, _there(compute) if device == "CUDA" else compute, device)
    library.impl(name, shapes, "Meta")
    library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    operator = getattr(getattr(torch.ops, namespace), name)
    if scratch is not None:
        _scratch[operator] = scratch
    return operator


def _there(compute: Callable[..., Any]) -> Callable[..., Any]:
    """`compute` on the GPU where its first tensor lies: what launches kernels does so on the current one."""

    @functools.wraps(compute)
    def run(first: Tensor | Sequence[Tensor], *others: Any, **options: Any) -> Any:
        with torch.cuda.device((first if isinstance(first, Tensor) else first[0]).device):
            return compute(first, *others, **options)

    return run


def scratch_bytes(
    operator: Any, arguments: Sequence[Any], options: Mapping[str, Any] | None = None
) -> int:
    """What torch.ops.NAMESPACE.NAME needs on the way, for arguments without data; 0 where it says nothing."""
    makes = _scratch.get(operator)
    made = () if makes is None else makes(*arguments, **(options or {}))
    return sum(tensor.nbytes for tensor in made)


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

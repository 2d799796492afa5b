"""Custom operators: they are registered with torch, so that its compiler calls them as they are."""

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
    """Register an operator torch.ops.NAMESPACE.NAME, and return it.

    Autograd does not see through the operator: its results are constants to torch.

    Args:
        schema: its name and arguments in torch's language: "twice(Tensor x) -> Tensor".
        compute: the function that computes the results.
        shapes: the function that makes results of the right shapes for tensors without data (device "meta").
        namespace: the name after torch.ops.
        devices: torch's names of the devices on which `compute` runs.
        scratch: a function that makes the tensors that `compute` needs besides its results, so that a plan's
            memory counts them.

    >>> twice = register_operator(
    ...     "twice(Tensor x) -> Tensor", lambda x: 2 * x, torch.empty_like, namespace="graphnet_example"
    ... )
    >>> twice(torch.ones(2))
    tensor([2., 2.])
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
    """Run `compute` with the GPU of its first tensor as the current one, on which kernels are launched."""

    @functools.wraps(compute)
    def run(first: Tensor | Sequence[Tensor], *others: Any, **options: Any) -> Any:
        with torch.cuda.device((first if isinstance(first, Tensor) else first[0]).device):
            return compute(first, *others, **options)

    return run


def scratch_bytes(
    operator: Any, arguments: Sequence[Any], options: Mapping[str, Any] | None = None
) -> int:
    """The bytes that an operator needs besides its results; 0 if `scratch` was not given.

    Args:
        operator: the operator, as `register_operator` returned it.
        arguments, options: its arguments, by position and by name, as tensors without data.

    >>> scratch_bytes(torch.ops.aten.relu.default, [torch.empty(2, device="meta")])
    0
    """
    makes = _scratch.get(operator)
    made = () if makes is None else makes(*arguments, **(options or {}))
    return sum(tensor.nbytes for tensor in made)


@functools.cache
def _library(namespace: str) -> Any:
    return torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]


def no_results(*_: Any, **__: Any) -> None:
    """The argument `shapes` for an operator that only writes into its arguments and returns nothing.

    >>> no_results(torch.ones(1)) is None
    True
    """


def only(wanted: frozenset[str], made: Gradients) -> Gradients:
    """The gradients of x, weight and bias that are wanted, and None for the others.

    >>> only(frozenset({"x"}), (torch.ones(1), torch.ones(1), None))
    (tensor([1.]), None, None)
    """
    grad_x, grad_weight, grad_bias = made
    return (
        grad_x if "x" in wanted else None,
        grad_weight if "weight" in wanted else None,
        grad_bias if "bias" in wanted else None,
    )

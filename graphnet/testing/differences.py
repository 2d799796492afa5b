"""Differences: estimate derivatives of forward by evaluating it at two points."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphnet.testing.case import Case
from graphnet.testing.leaves import Named, leaves, replaced

STEP = 1e-6  # in float64 the error is about STEP**2 by truncation and 1e-16 / STEP by rounding


def moved(arguments: Named, direction: Mapping[str, Tensor], distance: float) -> Named:
    """Return the arguments with some leaves moved along a direction."""
    tensors = leaves(arguments)
    return replaced(
        arguments, {leaf: tensors[leaf] + distance * d for leaf, d in direction.items()}
    )


def central(case: Case, arguments: Named, grads: Named, direction: Mapping[str, Tensor]) -> float:
    """Estimate the derivative of sum(grad * output) along a direction by a central difference."""
    after = case.outputs(case.forward(moved(arguments, direction, STEP)))
    before = case.outputs(case.forward(moved(arguments, direction, -STEP)))
    weighted = ((after[o] - before[o]) * leaves(grads)[_grad_of(o)] for o in after)
    return sum(float(part.sum()) for part in weighted) / (2.0 * STEP)


def one_sided(
    case: Case, arguments: Named, direction: Mapping[str, Tensor], distance: float
) -> dict[str, Tensor]:
    """Compute (f(x + distance * d) - f(x)) / distance for each output."""
    here = case.outputs(case.forward(arguments))
    there = case.outputs(case.forward(moved(arguments, direction, distance)))
    return {output: (there[output] - here[output]) / distance for output in here}


def unit(tensor: Tensor, position: int) -> Tensor:
    """Return a tensor that is 1 at one element and 0 elsewhere."""
    direction = torch.zeros_like(tensor, memory_format=torch.contiguous_format)
    direction.view(-1)[position] = 1.0
    return direction


def positions(tensor: Tensor, count: int, seed: int) -> list[int]:
    """Draw the indices of up to `count` different elements of a tensor."""
    generator = torch.Generator().manual_seed(seed)
    return [int(i) for i in torch.randperm(tensor.numel(), generator=generator)[:count]]


def _grad_of(output: str) -> str:
    return f"grad_{output}"

"""Agreement: whether two runs of one step did the same, up to rounding.

What is compared of a slot is its change in the step, not its value: with a small learning rate a wrong
gradient hardly moves a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graphnet.plan import Plan

# How far the results of two right programs may be apart, relative to their norm, by compute dtype.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 5e-2}


def tolerance(plan: Plan) -> float:
    """The tolerance of the coarsest floating-point dtype in a plan."""
    dtypes = {value.spec.dtype for value in plan.values.values()}
    return max((TOLERANCES.get(dtype, 0.0) for dtype in dtypes), default=0.0)


def agrees(plan: Plan) -> str:
    """In words, what was compared and found close."""
    return (
        f"agrees with eager on this step (loss and all {len(plan.slots)} weights and states within "
        f"{tolerance(plan):g})"
    )


def disagreement(
    plan: Plan,
    before: Mapping[str, Tensor],
    *,
    expected: tuple[Sequence[Tensor], Mapping[str, Tensor]],
    found: tuple[Sequence[Tensor], Mapping[str, Tensor]],
) -> str | None:
    """In words, the value in which two runs of one step differ most; None if all are close.

    `before` holds the slots before the step, `expected` and `found` each the outputs and the slots after it.
    """
    limit = tolerance(plan)
    apart: dict[str, float] = {}
    for name, theirs, mine in zip(plan.outputs, expected[0], found[0], strict=True):
        apart[name] = _distance(torch.zeros_like(theirs), theirs, mine)
    for name, start in before.items():
        apart[name] = _distance(start, expected[1][name], found[1][name])
    worst = max(apart, key=lambda name: apart[name])
    if apart[worst] <= limit:
        return None
    return (
        f"after the same step {worst!r} differs by {apart[worst]:.2g} of its change, where "
        f"{limit:g} is allowed"
    )


def _distance(start: Tensor, expected: Tensor, found: Tensor) -> float:
    """The norm of the difference over that of the change, above the rounding of the values."""
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else float("inf")
    rounding = 4 * torch.finfo(expected.dtype).eps * _norm(expected)
    difference = max(_norm(found.double() - expected.double()) - rounding, 0.0)
    if difference == 0.0:
        return 0.0
    ratio = difference / max(_norm(expected.double() - start.double()), 1e-300)
    return ratio if ratio == ratio else float("inf")


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.double()))

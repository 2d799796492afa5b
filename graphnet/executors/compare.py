"""Compare: do two runs of one step give the same results, up to rounding?

For a slot, the change in the step is compared and not its value: with a small learning rate, even a wrong
gradient changes a weight only a little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graphnet.plan import Plan

# The largest difference between the results of two correct programs, relative to their norm, by dtype. In 16
# bits, two correct programs differed by 0.056 in the first step of a trained model: its gradients are small,
# and muon makes their smallest singular values as large as the others. A wrong gradient differs by about 1.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.15, torch.bfloat16: 0.15}


def tolerance(plan: Plan) -> float:
    """Return the tolerance of the plan's floating-point dtype with the fewest digits."""
    dtypes = {value.spec.dtype for value in plan.values.values()}
    return max((TOLERANCES.get(dtype, 0.0) for dtype in dtypes), default=0.0)


def agreement(plan: Plan) -> str:
    """Say what was compared, and within which tolerance it agrees."""
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
    limit: float | None = None,
) -> str | None:
    """Compare two runs of one step, or of several.

    Args:
        plan: the plan of the step.
        before: the slots before the step, by name.
        expected: the outputs and the slots after the first run, which counts as correct.
        found: the outputs and the slots after the second run.
        limit: the largest difference that is allowed; by default that of two correct programs.

    Returns:
        A sentence that names the value with the largest difference; None if the two runs agree.
    """
    limit = tolerance(plan) if limit is None else limit
    distances: dict[str, float] = {}
    for name, right, other in zip(plan.outputs, expected[0], found[0], strict=True):
        distances[name] = _distance(torch.zeros_like(right), right, other)
    for name, start in before.items():
        distances[name] = _distance(start, expected[1][name], found[1][name])
    worst = max(distances, key=lambda name: distances[name])
    if distances[worst] <= limit:
        return None
    return (
        f"after the same step {worst!r} differs by {distances[worst]:.2g} of its change, where "
        f"{limit:g} is allowed"
    )


def _distance(start: Tensor, expected: Tensor, found: Tensor) -> float:
    """Return |found - expected| / |expected - start|, after the rounding error is taken off the numerator.

    Elements that are NaN in both, or the same infinity, have no difference.
    """
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else float("inf")
    alike = torch.where(expected.isinf(), expected == found, expected.isnan() & found.isnan())
    start, expected, found = (one.masked_fill(alike, 0.0) for one in (start, expected, found))
    rounding = 4 * torch.finfo(expected.dtype).eps * _norm(expected)
    difference = max(_norm(found.double() - expected.double()) - rounding, 0.0)
    if difference == 0.0:
        return 0.0
    ratio = difference / max(_norm(expected.double() - start.double()), 1e-300)
    return ratio if ratio == ratio else float("inf")


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor.double()))

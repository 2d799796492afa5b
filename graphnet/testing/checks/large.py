"""Check of inputs that are larger than the others are drawn: many functions have another branch there."""

from __future__ import annotations

import contextlib

from torch import Tensor

from graphnet.testing.case import Case, Pass, is_kernel
from graphnet.testing.check import check
from graphnet.testing.checks.expected import agree_with_expected, expected_values
from graphnet.testing.checks.gradients import (
    agree_with_autograd,
    agree_with_differences,
    gradient_autograd,
    gradient_numerical,
)
from graphnet.testing.leaves import Named, leaves, replaced
from graphnet.testing.outcome import CheckFailure, NotApplicable

_FACTOR = 16.0  # other inputs are between -2 and 2, these between -32 and 32


@check
def large_inputs(case: Case) -> None:
    """For inputs from -32 to 32, gradients and expected values are as right as for small ones."""
    if is_kernel(case):
        raise NotApplicable("kernel_at_ties compares a kernel with its layers there")
    arguments, others = (enlarged(case, case.arguments(seed=seed)) for seed in range(2))
    results = case.forward(arguments)
    if not all(bool(y.isfinite().all()) for y in case.outputs(results).values()):
        raise NotApplicable("forward is not finite for large inputs")
    try:
        if not case.excuse(expected_values):
            agree_with_expected(case, arguments)
        if case.trainable:
            _right_gradients(case, *(case.run(arguments=given) for given in (arguments, others)))
    except CheckFailure as failure:
        raise CheckFailure(
            f"for inputs from {-2 * _FACTOR:g} to {2 * _FACTOR:g}: {failure}"
        ) from None


def _right_gradients(case: Case, one: Pass, other: Pass) -> None:
    """Raise CheckFailure for a wrong gradient, unless the sample skips the check of small inputs."""
    if not case.excuse(gradient_numerical):
        agree_with_differences(case, one, other)
    if not case.excuse(gradient_autograd):
        with contextlib.suppress(NotApplicable):  # autograd cannot see through every forward
            agree_with_autograd(case, one)


def enlarged(case: Case, arguments: Named) -> Named:
    """Multiply the inputs that the kit draws; those that the author states may allow no other numbers."""
    inputs = leaves(arguments, case.ports.inputs).items()
    drawn = {
        leaf: _FACTOR * tensor
        for (leaf, tensor), given in zip(inputs, case.inputs, strict=True)
        if not isinstance(given, Tensor) and tensor.is_floating_point()
    }
    if not drawn:
        raise NotApplicable("the sample states the numbers of its inputs")
    return replaced(arguments, drawn)

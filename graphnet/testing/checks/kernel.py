"""Checks that a kernel has the names and the results of the layers that it replaces."""

from __future__ import annotations

from typing import Any

from graphnet.sdk import Kernel
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close
from graphnet.testing.expression import Expression
from graphnet.testing.leaves import floating, leaves, replaced
from graphnet.testing.outcome import CheckFailure, NotApplicable

_TOLERANCE = 1e-10
_SPREADS = (
    3.0,
    16.0,
)  # inputs are between -2 and 2: whole numbers from -6 to 6, and from -32 to 32


@check
def kernel_names(case: Case) -> None:
    """A kernel's arguments are names of its pattern, and it has as many outputs as the layers."""
    expression, kernel = _kernel(case)
    names = set(case.ports.specs)
    others = [n for n in kernel.signature.tensors if n not in names]
    if others:
        raise CheckFailure(
            f"expected forward to take names of {kernel.replaces!r}, found {', '.join(others)}"
        )
    replaced = expression.root.layer
    if len(kernel.outputs) != len(replaced.outputs):
        raise CheckFailure(
            f"expected {len(replaced.outputs)} outputs as {type(replaced).__name__} has, found "
            f"{len(kernel.outputs)}"
        )


@check
def kernel_equals_reference(case: Case) -> None:
    """A kernel gives the outputs, new states and gradients of its pattern's layers, to 10 digits."""
    expression, kernel = _kernel(case)
    arguments = case.arguments()
    results = case.forward(arguments)
    grads = case.grads(results)
    outputs, gradients, states = expression.run(
        arguments, [grads[f"grad_{name}"] for name in kernel.outputs]
    )
    expect_close(
        leaves(results, kernel.outputs),
        dict(zip(kernel.outputs, outputs, strict=True)),
        what=f"the output is not that of {kernel.replaces}",
        advice="Compute the same, or let match return None where it cannot.",
        tolerance=_TOLERANCE,
    )
    expect_close(
        leaves(results, [f"{name}_next" for name in kernel.updates]),
        states,
        what=f"the new state is not that of {kernel.replaces}",
        advice="Name the states in updates, and return what the layers return.",
        tolerance=_TOLERANCE,
    )
    method = case.inference if kernel.signature.inference else case.forward
    expect_close(
        leaves(method(arguments), kernel.outputs),
        dict(zip(kernel.outputs, expression.predict(arguments), strict=True)),
        what=f"the inference output is not that of {kernel.replaces}",
        advice="State inference where a layer in the pattern has one.",
        tolerance=_TOLERANCE,
    )
    names = sorted(case.differentiable)
    found: dict[str, Any] = case.backward(arguments, results, grads)
    expect_close(
        leaves(found, names),
        leaves(gradients, [name for name in names if name in gradients]),
        what=f"the gradient is not that of {kernel.replaces}",
        advice="Compute the same, or let match return None where it cannot.",
        tolerance=_TOLERANCE,
    )


@check
def kernel_at_ties(case: Case) -> None:
    """At whole numbers, small and large, where functions have kinks and ties, a kernel is its layers too."""
    expression, kernel = _kernel(case)
    arguments = case.arguments()
    inputs = floating(arguments, case.ports.inputs)
    names = sorted(case.differentiable) if case.trainable else []
    usual = floating(case.run(arguments=arguments).gradients, names) if names else {}
    finite = False
    for spread in _SPREADS:
        whole = {leaf: (spread * tensor).round() for leaf, tensor in inputs.items()}
        given = replaced(arguments, whole)
        results = case.forward(given)
        grads = case.grads(results)
        wanted = [grads[f"grad_{name}"] for name in kernel.outputs]
        outputs, gradients, _ = expression.run(given, wanted)
        if not all(bool(y.isfinite().all()) for y in outputs):
            continue
        finite = True
        found: dict[str, Any] = case.backward(given, results, grads) if names else {}
        expect_close(
            {**leaves(results, kernel.outputs), **leaves(found, names)},
            {
                **dict(zip(kernel.outputs, outputs, strict=True)),
                **leaves(gradients, [name for name in names if name in gradients]),
            },
            what=f"at whole numbers from {-2 * spread:g} to {2 * spread:g}, the result is not that of "
            f"{kernel.replaces}",
            advice="Look at masks (> or >=), and at which of several equal values gets the gradient.",
            tolerance=_TOLERANCE,
            usual=usual,
        )
    if not finite:
        raise NotApplicable("the layers are not finite at whole numbers")


def _kernel(case: Case) -> tuple[Expression, Kernel]:
    if case.expression is None or not isinstance(case.layer, Kernel):
        raise NotApplicable("the layer is no kernel")
    return case.expression, case.layer

"""Checks that backward is the derivative of forward."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphnet.testing.author import raised
from graphnet.testing.case import Case, Pass
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close, looks_like
from graphnet.testing.differences import STEP, central, one_sided, positions, unit
from graphnet.testing.draw import draw
from graphnet.testing.leaves import Named, floating, leaves, replaced
from graphnet.testing.outcome import CheckFailure, NotApplicable

_TOLERANCE = 1e-5  # of central differences with STEP, relative to the largest derivative


@check
def nondifferentiable(case: Case) -> None:
    """Outputs do not change smoothly with an input that is declared nondifferentiable."""
    layer, specs = case.layer, case.ports.specs
    arguments = case.arguments()
    for name in layer.nondifferentiable:
        if name in case.ports.parameters:
            raise CheckFailure(
                f"expected no parameter in `nondifferentiable`, found {name!r}: it would never be "
                f"trained. Make it a state, or state its gradient."
            )
    if layer.outputs == ("loss",):
        return  # a target is data, so nobody needs its gradient
    for leaf, tensor in floating(arguments, layer.nondifferentiable).items():
        grads = case.grads(case.forward(arguments))
        slope = central(case, arguments, grads, {leaf: draw(tuple(tensor.shape), "slope", 0)})
        if abs(slope) > 1e-6:
            raise CheckFailure(
                f"expected outputs that do not change smoothly with {leaf!r}, which is declared "
                f"nondifferentiable, found a slope of {slope:.3g}. Return its gradient {specs[leaf]}."
            )


@check
def random_replay(case: Case) -> None:
    """A random layer draws from its key, and backward uses the same numbers as forward."""
    if "key" not in case.layer.signature.forward:
        raise NotApplicable("the layer is not random")
    arguments = case.arguments()
    first = leaves(case.forward(arguments))
    others = [
        leaves(case.forward({**arguments, "key": case.arguments(seed=seed)["key"]}))
        for seed in range(1, 9)
    ]
    if not any(not torch.equal(other[leaf], first[leaf]) for other in others for leaf in first):
        raise CheckFailure(
            "expected other results for another key, found the same for nine keys. Draw from `key`, or "
            "do not name it."
        )
    case.require_backward()
    one = case.run()
    for leaf, tensor in floating(one.arguments, sorted(case.differentiable)).items():
        for position in positions(tensor, 24, seed=0):
            slope = central(case, one.arguments, one.grads, {leaf: unit(tensor, position)})
            gradient = float(leaves(one.gradients)[leaf].reshape(-1)[position])
            if (abs(slope) < 1e-7) != (abs(gradient) < 1e-9):
                raise CheckFailure(
                    f"{leaf!r}: expected backward to use the random numbers of its forward, found an "
                    f"element with slope {slope:.3g} and gradient {gradient:.3g}. Draw the same numbers "
                    f"from the same `key`, in one method that both call."
                )


@check
def gradient_linear(case: Case) -> None:
    """Backward is linear in the gradients of the outputs: it does not ignore them or add to them."""
    case.require_backward()
    one = case.run()
    other = case.grads(one.results, seed=1)
    mixed = {
        name: 2.0 * grad - 3.0 * other[name] if grad.is_floating_point() else grad
        for name, grad in one.grads.items()
    }
    first = floating(one.gradients)
    second = floating(case.backward(one.arguments, one.results, other))
    expect_close(
        floating(case.backward(one.arguments, one.results, mixed)),
        {leaf: 2.0 * tensor - 3.0 * second[leaf] for leaf, tensor in first.items()},
        what="backward is not linear in the gradient of the output",
        advice="Every gradient is a product with grad_<output>; use it, and nothing beside it.",
        tolerance=1e-5,
    )


@check
def gradient_numerical(case: Case) -> None:
    """Each gradient agrees with central differences in float64, in any direction."""
    case.require_backward()
    agree_with_differences(case, case.run(), case.run(seed=1))


def agree_with_differences(case: Case, one: Pass, other: Pass) -> None:
    """Raise CheckFailure if gradients differ from central differences at the numbers of both passes.

    At those of one alone, a difference may step over a kink.
    """
    problem = _numerical_problem(case, one)
    if problem and _numerical_problem(case, other):
        raise CheckFailure(problem)


def _numerical_problem(case: Case, one: Pass) -> str | None:
    for leaf, tensor in floating(one.arguments, sorted(case.differentiable)).items():
        gradient = leaves(one.gradients)[leaf]
        whole = [draw(tuple(tensor.shape), f"direction {i}", i) for i in range(3)]
        single = [unit(tensor, position) for position in positions(tensor, 6, seed=1)]
        expected = [central(case, one.arguments, one.grads, {leaf: d}) for d in (*whole, *single)]
        found = [float((gradient * d).sum()) for d in (*whole, *single)]
        for part, where in ((slice(0, 3), "along random directions"), (slice(3, None), "singly")):
            mine, theirs = (torch.tensor(v[part], dtype=torch.float64) for v in (found, expected))
            floor = 1e-3 * max(map(abs, expected)) + 1e-13 / STEP
            if not mine.isfinite().all() or not _near(mine, theirs, floor):
                return (
                    f"the gradient of {leaf!r} {where}: expected {_numbers(theirs)} by central "
                    f"differences, found {_numbers(mine)}{looks_like(mine, theirs)}. Work the derivative "
                    f"out again, or compare with torch.autograd."
                )
    return None


def _near(found: Tensor, expected: Tensor, floor: float) -> bool:
    if not found.numel():
        return True
    scale = max(floor, float(expected.abs().max()))
    return bool(((found - expected).abs() <= _TOLERANCE * scale + 1e-14 / STEP).all())


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{float(value):.6g}" for value in values[:3])


@check
def gradient_autograd(case: Case) -> None:
    """Each gradient agrees with torch.autograd through the same forward, to 9 digits."""
    case.require_backward()
    agree_with_autograd(case, case.run())


def agree_with_autograd(case: Case, one: Pass) -> None:
    """Raise CheckFailure if gradients of a pass differ from torch.autograd's."""
    names = floating(one.arguments, sorted(case.differentiable))
    expected = autograd(case, one.arguments, one.grads, tuple(names))
    expect_close(
        leaves(one.gradients),
        expected,
        what="the gradient is not that of torch.autograd",
        advice=lambda: _beside_autograd(case, one),
        tolerance=1e-9,
    )


def _beside_autograd(case: Case, one: Pass) -> str:
    """Compute the advice for a gradient that is not autograd's: what central differences say of it."""
    if _numerical_problem(case, one):
        return "Central differences do not agree with it either: work the derivative out again."
    return (
        "Central differences agree with it to 5 digits: look for a cast to float32, a small term, or an "
        "operation of forward that autograd does not follow, such as detach."
    )


def autograd(
    case: Case, arguments: Named, grads: Named, names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Compute the expected gradients with torch's autograd, through the layer's forward."""
    with torch.enable_grad():
        tensors = leaves(arguments)
        sources = {leaf: tensors[leaf].detach().clone().requires_grad_() for leaf in names}
        try:
            outputs = case.outputs(case.forward(replaced(arguments, sources)))
            reached = {name: y for name, y in outputs.items() if y.requires_grad}
            if not reached:
                raise NotApplicable("autograd does not see through forward")
            gradients = torch.autograd.grad(
                list(reached.values()),
                list(sources.values()),
                [grads[f"grad_{name}"] for name in reached],
                allow_unused=True,
                materialize_grads=True,
            )
        except RuntimeError as error:
            raise NotApplicable(f"autograd cannot go through forward: {raised(error)}") from error
    return dict(zip(sources, gradients, strict=True))


@check
def gradient_at_kinks(case: Case) -> None:
    """At kinks and ties, each gradient lies between the derivatives of the two sides.

    In a chain, one layer may invert the kink of another, so a kernel may also give the layers' gradient.
    """
    case.require_backward()
    arguments = case.arguments()
    inputs = floating(arguments, [n for n in case.ports.inputs if n in case.differentiable])
    whole = {leaf: tensor.round() for leaf, tensor in inputs.items()}  # zeros, ones, and many ties
    arguments = replaced(arguments, whole)
    if not all(bool(y.isfinite().all()) for y in case.outputs(case.forward(arguments)).values()):
        raise NotApplicable("forward is not finite at whole numbers")
    one = case.run(arguments=arguments)
    replaced_gives = _of_pattern(case, one)
    for leaf, tensor in whole.items():
        directions = {f" at element {i}": unit(tensor, i) for i in positions(tensor, 12, seed=2)}
        directions[" summed over all elements"] = torch.ones_like(tensor)
        for where, direction in directions.items():
            found = float((leaves(one.gradients)[leaf] * direction).sum())
            low, high = _interval(case, one, leaf, direction)
            if leaf in replaced_gives:
                expected = float((replaced_gives[leaf] * direction).sum())
                low, high = min(low, expected - 1e-9), max(high, expected + 1e-9)
            if not low <= found <= high:
                raise CheckFailure(
                    f"the gradient of {leaf!r}{where}, at whole numbers: expected {low:.5g} to "
                    f"{high:.5g}, which differences to both sides give, found {found:.5g}. "
                    f"{_at_kink(case, found)}"
                )


def _at_kink(case: Case, found: float) -> str:
    """Compute the advice for a wrong gradient at whole numbers: whether it is right elsewhere."""
    if not math.isfinite(found):
        return "Look for 0 / 0, or for a pole that forward does not have."
    if _numerical_problem(case, case.run()):
        return "It is wrong at other numbers too: work the derivative out again."
    return (
        "It is right at other numbers: look at masks (> or >=), and at ties, where one of them gets the "
        "gradient."
    )


def _of_pattern(case: Case, one: Pass) -> dict[str, Tensor]:
    """Return the gradients that the layers give, for a kernel with a chain in its pattern."""
    if case.expression is None or not case.expression.chained:
        return {}
    grads = [one.grads[f"grad_{name}"] for name in case.layer.outputs]
    _, gradients, _ = case.expression.run(one.arguments, grads)
    return leaves(gradients, [name for name in gradients if name in case.differentiable])


def _interval(case: Case, one: Pass, leaf: str, direction: Tensor) -> tuple[float, float]:
    """Return the interval between the one-sided derivatives; all numbers if they are not finite."""
    right = one_sided(case, one.arguments, {leaf: direction}, STEP)
    left = one_sided(case, one.arguments, {leaf: direction}, -STEP)
    low = high = 0.0
    size = 1.0
    for output, after in right.items():
        sides = torch.stack((after, left[output])) * one.grads[f"grad_{output}"]
        if not sides.isfinite().all() or bool((sides.abs() > 1e3).any()):
            return -torch.inf, torch.inf  # a jump or a pole, no kink
        low += float(sides.amin(0).sum())
        high += float(sides.amax(0).sum())
        size = max(size, float(sides.abs().sum()))
    slack = 1e-4 * size
    return low - slack, high + slack

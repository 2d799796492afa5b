"""Check of what a batch means when it is computed in parts, as several processes compute it."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet.graph import gradient_names, invoke, result_names
from graphnet.sdk import Layer, Loss
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close
from graphnet.testing.leaves import Named, specs_of
from graphnet.testing.outcome import CheckFailure, NotApplicable

_TOLERANCE = 1e-9


@check
def distributed(case: Case) -> None:
    """A loss is the mean of those of the parts of a batch, by their weights; states can be averaged.

    A layer that states itself in two parts computes the same in several processes as in one.
    """
    parts = case.layer.across_processes()
    if isinstance(case.layer, Loss):
        _loss(case, case.layer)
    elif parts is not None:
        _two_processes(case, *parts)
    elif case.layer.updates:
        _states(case)
    else:
        raise NotApplicable("it is no loss, and changes no state")


def _loss(case: Case, layer: Loss) -> None:
    arguments = case.arguments()
    tensors = {name: arguments[name] for name in layer.signature.tensors}
    sizes = {len(one) if isinstance(one, Tensor) and one.ndim else 0 for one in tensors.values()}
    (size, *others) = sizes
    if others or size < 2 or size % 2:
        raise NotApplicable("the sample is no batch of an even number")
    losses: list[Tensor] = []
    weights: list[Tensor] = []
    for part in range(2):
        mine: Named = {**arguments, **{n: t.chunk(2)[part] for n, t in tensors.items()}}
        losses.append(case.forward(mine)["loss"])
        given = [mine[name] for name in layer.signature.tensors[1:]]
        weighs = type(layer).weight is not Loss.weight
        weights.append(layer.weight(*given).double() if weighs else torch.ones(()))
    together = torch.stack(losses) * torch.stack(weights)
    expect_close(
        {"loss": together.sum() / torch.stack(weights).sum()},
        {"loss": case.forward(arguments)["loss"]},
        what="expected the loss of a batch as the mean of those of its halves, ",
        advice="If forward divides by something else than the number of elements, return it from `weight`; "
        "if it is a sum, make it a mean.",
        tolerance=_TOLERANCE,
    )


def _two_processes(case: Case, first: Layer, second: Layer) -> None:
    """Compare the layer with its two parts, each of which two processes call on half of the samples."""
    arguments, inputs = case.arguments(), case.ports.inputs
    tensors = {name: arguments[name] for name in inputs}
    if any(not isinstance(one, Tensor) or len(one) % 2 for one in tensors.values()):
        raise NotApplicable("the sample is no batch of an even number")
    halves = [{**arguments, **{n: t.chunk(2)[i] for n, t in tensors.items()}} for i in range(2)]
    own = [invoke(first, "forward", half)[0] for half in halves]
    for half in halves:
        half["statistics"] = torch.stack(own)
    results = [
        dict(zip(result_names(second, "forward"), invoke(second, "forward", half), strict=True))
        for half in halves
    ]
    whole = case.forward(arguments)
    together = {"y": torch.cat([one["y"] for one in results])}
    together |= {f"{state}_next": results[0][state] for state in case.layer.updates}
    advice = (
        "The second part must return what `forward` returns, for the statistics of all processes."
    )
    _compare(together, whole, "its parts on two halves of a batch return something else", advice)

    grads = case.grads(whole)
    reverse = [
        _gradients(second, {**half, **result, "grad_y": grad})
        for half, result, grad in zip(halves, results, grads["grad_y"].chunk(2), strict=True)
    ]
    of_statistics = sum(one["statistics"] for one in reverse)
    for i, half in enumerate(halves):
        given = {**half, "y": own[i], "grad_y": of_statistics[i]}
        for name, gradient in _gradients(first, given).items():
            reverse[i][name] = reverse[i][name] + gradient
    found = {n: torch.cat([one[n] for one in reverse]) for n in inputs if n in case.differentiable}
    found |= {name: sum(one[name] for one in reverse) for name in case.parameters}
    advice = "The parts' backward must return the gradients of their own arguments, `statistics` included."
    expected = case.backward(arguments, whole, grads)
    _compare(found, expected, "the gradients of its parts on two halves of a batch differ", advice)


def _gradients(layer: Layer, given: Named) -> Named:
    """The gradients of a layer's arguments by name; None is left out."""
    specs = specs_of(given)
    names = gradient_names(layer, specs)
    values = {**given, "specs": specs, "wanted": frozenset(names)}
    pairs = zip(names, invoke(layer, "backward", values), strict=True)
    return {name: gradient for name, gradient in pairs if gradient is not None}


def _compare(found: Named, expected: Named, what: str, advice: str) -> None:
    tensors = {name: expected[name] for name in found}
    expect_close(found, tensors, what=what, advice=advice, tolerance=_TOLERANCE)


def _states(case: Case) -> None:
    results = case.forward(case.arguments())
    for state in case.layer.updates:
        tensor = results[f"{state}_next"]
        if isinstance(tensor, Tensor) and not tensor.is_floating_point():
            raise CheckFailure(
                f"expected the new state {state!r} in floating point, found {tensor.dtype}: several "
                f"processes take the mean of their states."
            )

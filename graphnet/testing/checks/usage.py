"""Checks of how a plan uses a layer: saved values, unwanted gradients, values that are used twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphnet.testing.case import Case, Pass
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close, same_bits
from graphnet.testing.draw import draw
from graphnet.testing.leaves import cloned, floating, leaves, replaced
from graphnet.testing.outcome import CheckFailure, NotApplicable


@check
def saves_used(case: Case) -> None:
    """Every save, output and input that is kept for backward influences a gradient."""
    case.require_backward()
    layer = case.layer
    for save in layer.saves:
        if save not in layer.signature.backward:
            raise CheckFailure(
                f"expected backward to name every save, found that it does not name {save!r}. Take it "
                f"out of `saves` and out of what forward returns."
            )
    one = case.run()
    same_class = [other for other in case.siblings if other.usable]
    for name in kept(case, one):
        if not any(_matters(other, name) for other in (case, *same_class)):
            raise CheckFailure(
                f"expected backward to use {name!r}, which is kept for it, found that no gradient "
                f"changes with its values. Do not name it; `specs[{name!r}]` tells its shape."
            )


def kept(case: Case, one: Pass) -> list[str]:
    """Return the tensors that stay in memory after forward because backward names them."""
    tensors = {**one.arguments, **one.results}
    return [
        name
        for name in case.layer.signature.backward
        if name in tensors and name != "key" and leaves(tensors, [name])
    ]


def _matters(case: Case, name: str) -> bool:
    one = case.run()
    expected = leaves(one.gradients)
    for change in (_other_values, _negative):
        arguments, results = (
            change(group, name) if name in group else group
            for group in (one.arguments, one.results)
        )
        try:
            found = leaves(case.backward(arguments, results, one.grads))
        except Exception:  # backward has read the changed values, such as indices out of range
            return True
        if any(not same_bits(found[leaf], expected[leaf]) for leaf in expected):
            return True
    return not expected


def _other_values(named: Mapping[str, Any], name: str) -> dict[str, Any]:
    def other(leaf: str, tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bool:
            return ~tensor
        if tensor.is_floating_point():
            return tensor + draw(tuple(tensor.shape), f"other {leaf}", 5).to(tensor.dtype)
        return tensor + 1

    return replaced(named, {leaf: other(leaf, t) for leaf, t in leaves(named, [name]).items()})


def _negative(named: Mapping[str, Any], name: str) -> dict[str, Any]:
    tensors = floating(named, [name]).items()
    return replaced(named, {leaf: -2.0 * tensor - 0.3 for leaf, tensor in tensors})


@check
def wanted(case: Case) -> None:
    """A wanted gradient is the same whichever other gradients are wanted."""
    case.require_backward()
    one = case.run()
    names = sorted(case.differentiable)
    if len(names) < 2:
        raise NotApplicable("the layer has one gradient only")
    subsets = [{name} for name in names] + [set(names) - {name} for name in names]
    for subset in subsets:
        found = case.backward(one.arguments, one.results, one.grads, frozenset(subset))
        expect_close(
            leaves(found, sorted(subset)),
            leaves(one.gradients, sorted(subset)),
            what=f"the gradient changes when only {', '.join(sorted(subset))} is wanted",
            advice="`wanted` saves work; it must not change a gradient that is wanted.",
            tolerance=1e-10,
        )


@check
def unused_outputs(case: Case) -> None:
    """If an output is not used, None as its gradient gives the same as zeros."""
    case.require_backward()
    optional = sorted(case.layer.signature.optional)
    if not optional or len(case.layer.outputs) < 2:
        raise NotApplicable("no gradient of an output may be None")
    one = case.run()
    for name in optional:
        zeros = {**one.grads, name: torch.zeros_like(one.grads[name])}
        expect_close(
            leaves(case.backward(one.arguments, one.results, {**one.grads, name: None})),
            leaves(case.backward(one.arguments, one.results, zeros)),
            what=f"{name}=None gives something else than zeros",
            advice="None says that nobody used this output: leave its part out.",
            tolerance=1e-12,
        )


@check
def gradient_of_one(case: Case) -> None:
    """If the gradient of a loss is the number 1.0, backward gives the same as for a tensor of ones."""
    case.require_backward()
    names = sorted(case.layer.signature.ones)
    if not names:
        raise NotApplicable("no gradient has the default 1.0")
    one = case.run()
    for name in names:
        ones = {**one.grads, name: torch.ones_like(one.grads[name])}
        expect_close(
            leaves(case.backward(one.arguments, one.results, {**one.grads, name: 1.0})),
            leaves(case.backward(one.arguments, one.results, ones)),
            what=f"{name}=1.0 gives something else than a tensor of ones",
            advice="1.0 says that this loss is the whole loss: leave the multiplication out.",
            tolerance=1e-12,
        )


@check
def same_tensor_twice(case: Case) -> None:
    """If two inputs are the same tensor, their gradients are those of two equal tensors."""
    case.require_backward()
    arguments = case.arguments()
    inputs = floating(arguments, [n for n in case.ports.inputs if n in case.differentiable])
    pairs = [(a, b) for a in inputs for b in inputs if a < b and inputs[a].shape == inputs[b].shape]
    if not pairs:
        raise NotApplicable("the layer has no two inputs of one shape")
    for a, b in pairs:
        shared = replaced(arguments, {b: inputs[a]})
        expected = case.run(arguments=cloned(shared))
        expect_close(
            leaves(case.run(arguments=shared).gradients),
            leaves(expected.gradients),
            what=f"the gradient changes when {a!r} and {b!r} are the same tensor",
            advice="Return one gradient for each use; graphnet adds them up.",
            tolerance=1e-12,
        )

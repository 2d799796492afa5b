"""Check of what a batch means when it is computed in parts, as several processes compute it."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet.sdk import Loss
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.compare import expect_close
from graphnet.testing.leaves import Named
from graphnet.testing.outcome import CheckFailure, NotApplicable

_TOLERANCE = 1e-9


@check
def distributed(case: Case) -> None:
    """A loss is the mean of those of the parts of a batch, by their weights; states can be averaged."""
    if isinstance(case.layer, Loss):
        _loss(case, case.layer)
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


def _states(case: Case) -> None:
    results = case.forward(case.arguments())
    for state in case.layer.updates:
        tensor = results[f"{state}_next"]
        if isinstance(tensor, Tensor) and not tensor.is_floating_point():
            raise CheckFailure(
                f"expected the new state {state!r} in floating point, found {tensor.dtype}: several "
                f"processes take the mean of their states."
            )

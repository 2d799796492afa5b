"""Floor: how many checks must at least run, so that a report without a failure says something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphnet.sdk import Kernel, Loss, MultiTensorKernel, Optimizer
from graphnet.testing.case import Case
from graphnet.testing.rule_case import RuleCase


@dataclass(frozen=True, slots=True)
class Floor:
    """A kind of thing to check, and how many checks must run on one.

    >>> Floor("loss", 26).least
    26
    """

    kind: str
    least: int


# A little below the fewest that run on any sound one of that kind, without jsonschema and without a GPU.
_NO_BACKWARD = Floor("layer without backward", 13)
_LAYER = Floor("layer", 26)
_WITH_PARAMETERS = Floor("layer with parameters", 29)
_LOSS = Floor("loss", 27)
_KERNEL = Floor("kernel", 25)
_OPTIMIZER = Floor("optimizer", 9)
_MULTI_TENSOR = Floor("kernel for many tensors", 7)
FLOORS = (
    _NO_BACKWARD,
    _LAYER,
    _WITH_PARAMETERS,
    _LOSS,
    _KERNEL,
    _OPTIMIZER,
    _MULTI_TENSOR,
)


def floor_for(cls: type, cases: Sequence[Case | RuleCase]) -> Floor:
    """Return the floor of what these cases are of; the samples tell whether a layer has parameters."""
    if issubclass(cls, MultiTensorKernel):
        return _MULTI_TENSOR
    if issubclass(cls, Optimizer):
        return _OPTIMIZER
    usable = [c for c in cases if isinstance(c, Case) and c.raises is None and c.usable]
    if not any(case.trainable for case in usable) and usable:
        return _NO_BACKWARD
    if issubclass(cls, Kernel):
        return _KERNEL
    if issubclass(cls, Loss):
        return _LOSS
    return _WITH_PARAMETERS if any(case.parameters for case in usable) else _LAYER

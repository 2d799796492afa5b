"""Sample: the inputs that a layer is checked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from graphnet.sdk import Layer

Input = tuple[int, ...] | Tensor
Expected = Callable[..., Any]
"""Computes what forward must return from forward's tensors, such as a function of torch."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A layer, and inputs on which it is checked.

    Args:
        layer: the layer. For a kernel, the layers that it replaces, the outermost first.
        inputs: for each input a tensor, or a shape for which a tensor is drawn.
        raises: the error that these inputs must raise.
        skip: check -> the reason why it is skipped, for a layer that breaks a rule on purpose.
        expected: a function that computes the outputs in another way than the layer, such as one of
            torch.nn.functional. It gets the tensors of forward in their order (None for an absent parameter)
            and returns the outputs; it may also return the new states, after the outputs. The kit checks
            that a layer is right in itself, and only these values tell the kit which layer was meant.
        starts: the number from which a parameter or state starts, by its name, such as {"weight": 1.0}.

    >>> from graphnet.builtin import ReLU
    >>> Sample(ReLU(), [(2, 3, 8, 8)]).inputs
    [(2, 3, 8, 8)]
    >>> Sample(ReLU(), [(2, 3)], expected=torch.relu).expected(torch.tensor([-1.0]))
    tensor([0.])
    """

    layer: Layer | tuple[Layer, ...]
    inputs: Sequence[Sequence[int] | Tensor]
    raises: type[Exception] | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    expected: Expected | None = None
    starts: Mapping[str, float] = field(default_factory=dict)

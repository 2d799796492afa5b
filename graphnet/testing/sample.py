"""Sample: the inputs that a layer is checked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from graphnet.sdk import Layer

Input = tuple[int, ...] | Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """A layer, and inputs on which it is checked.

    Args:
        layer: the layer. For a kernel, the layers that it replaces, the outermost first.
        inputs: for each input a tensor, or a shape for which a tensor is drawn.
        raises: the error that these inputs must raise.
        skip: check -> the reason why it is skipped, for a layer that breaks a rule on purpose.

    >>> from graphnet.builtin import ReLU
    >>> Sample(ReLU(), [(2, 3, 8, 8)]).inputs
    [(2, 3, 8, 8)]
    """

    layer: Layer | tuple[Layer, ...]
    inputs: Sequence[Sequence[int] | Tensor]
    raises: type[Exception] | None = None
    skip: Mapping[str, str] = field(default_factory=dict)

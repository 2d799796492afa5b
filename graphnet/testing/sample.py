"""Sample: the inputs that a layer is checked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from graphnet.sdk import Layer

Input = tuple[int, ...] | Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """A layer and what to try it on.

    `inputs` are shapes (their tensors are drawn) or tensors, one for each input of the layer. A sample
    for a kernel holds what it replaces: a layer, or the layers of the pattern, outermost first.
    `raises` is the error that these inputs must give. `skip` excuses the layer from checks by name,
    with the reason, for a layer that breaks a rule on purpose.
    """

    layer: Layer | tuple[Layer, ...]
    inputs: Sequence[Sequence[int] | Tensor]
    raises: type[Exception] | None = None
    skip: Mapping[str, str] = field(default_factory=dict)

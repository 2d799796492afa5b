"""The optimizer SGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.errors import DescriptionError, Problem
from graphnet.sdk import Optimizer, Rate, Spec, StateSpec


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD (Sutskever et al. 2013).

    g = grad + weight_decay p;  b = momentum b + (1 - dampening) g, but b = g in the first step;
    p -= lr d, where d = g if momentum is 0, g + momentum b with nesterov, else b.

    Raises:
        DescriptionError: nesterov without momentum, or with dampening.

    >>> SGD(lr=0.1, momentum=0.9).momentum
    0.9
    """

    elementwise: ClassVar[bool] = True
    momentum: Rate = 0.0
    dampening: float = 0.0
    weight_decay: Rate = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            message = "expects momentum above 0 and dampening 0"
            raise DescriptionError([Problem(message, "nesterov")])

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        return {"momentum_buffer": StateSpec(parameter.shape) if self.momentum else None}

    def update(
        self,
        parameter: Tensor,
        grad: Tensor,
        lr: Tensor,
        step: Tensor,
        momentum_buffer: Tensor | None,
    ) -> None:
        direction = grad
        if self.weight_decay:
            direction = torch.add(grad, parameter, alpha=self.weight_decay)
        if momentum_buffer is not None:
            fresh = direction
            if self.dampening:  # the first step does not dampen the gradient
                fresh = fresh * (1.0 - self.dampening * (step > 0).to(fresh.dtype))
            momentum_buffer.mul_(self.momentum).add_(fresh)
            if self.nesterov:
                direction = torch.add(direction, momentum_buffer, alpha=self.momentum)
            else:
                direction = momentum_buffer
        parameter.addcmul_(direction, lr, value=-1.0)

"""The optimizer of the paper, for eager modules."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from graphnet.nn.module import Pair
from graphnet.sdk import Optimizer, default_registry


class SGD:
    """Stochastic gradient descent, with the arguments of torch.optim.SGD.

    Args:
        params: pairs of a parameter and its gradient, from `module.param()`.

    >>> parameter, gradient = torch.ones(1), torch.ones(1)
    >>> SGD([(parameter, gradient)], lr=0.5).step()
    >>> parameter
    tensor([0.5000])
    """

    def __init__(
        self,
        params: Iterable[Pair],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.lr = lr
        self.pairs = list(params)
        config = {
            "lr": float(lr),
            "momentum": float(momentum),
            "dampening": float(dampening),
            "weight_decay": float(weight_decay),
            "nesterov": nesterov,
        }
        self._rule: Optimizer = default_registry().make("optimizers", {"sgd": config})
        self._keeps_buffers = momentum != 0.0
        self._steps = 0
        self._buffers: list[Tensor] = []

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its accumulated gradient; the gradients are not changed."""
        # The buffers are made in the first step, as in torch, since `.to()` may move the parameters before.
        if self._keeps_buffers and not self._buffers:
            self._buffers = [torch.zeros_like(parameter) for parameter, _ in self.pairs]
        for (parameter, gradient), buffer in zip_longest(self.pairs, self._buffers):
            options: dict[str, Any] = {"device": parameter.device}
            lr = torch.tensor(self.lr, dtype=parameter.dtype, **options)
            step = torch.tensor(self._steps, **options)
            self._rule.update(parameter, gradient, lr, step, buffer)
        self._steps += 1

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for _, gradient in self.pairs:
            gradient.zero_()

    def update_parameters(self) -> None:
        """Call `step`, then `zero_grad`, as the paper does at the end of each batch."""
        self.step()
        self.zero_grad()

"""The optimizers Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from graphnet.sdk import Fraction, Optimizer, Rate, Spec, StateSpec


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), as torch.optim.Adam; weight decay is added to the gradient.

    g = grad + weight_decay p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  t = step + 1;
    p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps).

    >>> Adam(lr=0.001).betas
    (0.9, 0.999)
    """

    elementwise: ClassVar[bool] = True
    lr: Rate = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    weight_decay: Rate = 0.0
    decoupled: ClassVar[bool] = False  # whether weight decay changes the parameter directly

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        return {"exp_avg": StateSpec(parameter.shape), "exp_avg_sq": StateSpec(parameter.shape)}

    def decay(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> Tensor:
        """Apply weight decay, and return the gradient that the update uses."""
        return torch.add(grad, parameter, alpha=self.weight_decay) if self.weight_decay else grad

    def update(
        self,
        parameter: Tensor,
        grad: Tensor,
        lr: Tensor,
        step: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
    ) -> None:
        grad = self.decay(parameter, grad, lr)
        beta1, beta2 = self.betas
        exp_avg.lerp_(grad, 1.0 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
        # In float64: 1 - b2^t is 1e-3 in the first step, and float32 would lose three digits of it.
        t = (step + 1).to(torch.float64)
        step_size = (lr / (1.0 - torch.pow(beta1, t))).to(parameter.dtype)
        root = torch.sqrt(1.0 - torch.pow(beta2, t)).to(parameter.dtype)
        denominator = exp_avg_sq.sqrt().div_(root).add_(self.eps)
        parameter.addcmul_(exp_avg / denominator, step_size, value=-1.0)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW.

    p -= lr weight_decay p, then Adam's step with the plain gradient.

    >>> AdamW(lr=0.001).weight_decay
    0.01
    """

    elementwise: ClassVar[bool] = True
    weight_decay: Rate = 1e-2
    decoupled: ClassVar[bool] = True

    def decay(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> Tensor:
        if self.weight_decay:
            parameter.mul_(1.0 - lr * self.weight_decay)
        return grad

"""Optimizers and learning-rate schedules: rules over one parameter node at a time.

An Optimizer states, for one parameter, which tensors it keeps and how a step changes them. The update
pass makes one call of it for each parameter node, in the order of the graph's parameters. It is the
one place where graphnet writes in place.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from graphnet.definition import Definition
from graphnet.errors import ContractError, DescriptionError, Problem
from graphnet.spec import Spec, StateSpec

Rate = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Optimizer(Definition):
    """How one parameter is updated; subclasses define `update` and, if they keep tensors, `states`.

    `update` asks for its arguments by name: `parameter`, `grad` (the same shape and dtype), `lr` (0-dim,
    the parameter's dtype), `step` (0-dim int64, 0 in the first step) and its own states (None for an
    absent one). It writes the parameter and the states in place and returns nothing.
    """

    arguments: ClassVar[tuple[str, ...]]
    lr: Rate

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.update is not Optimizer.update:
            cls.arguments = tuple(inspect.signature(cls.update).parameters)[1:]
            if cls.arguments[:2] != ("parameter", "grad"):
                raise ContractError(
                    f"{cls.__name__}.update must take parameter and grad first, takes "
                    f"{', '.join(cls.arguments) or 'nothing'}"
                )

    def rule_for(self, parameter: Spec) -> Optimizer:
        """The optimizer of a parameter of this spec: this one, or another, with an `lr` of its own."""
        return self

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        """The tensors kept for one parameter, by update's names; None for one that is absent."""
        return {}

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Write the parameter and its states."""
        raise ContractError(f"{type(self).__name__} defines no update(parameter, grad, ...)")


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD (Sutskever et al. 2013).

    g = grad + weight_decay p;  b = momentum b + (1 - dampening) g (b = g in the first step);
    p -= lr d, where d = g + momentum b with nesterov, else b, or g where momentum is 0.

    >>> SGD(lr=0.1, momentum=0.9).momentum
    0.9
    """

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
            if self.dampening:  # the first step takes the whole gradient
                fresh = fresh * (1.0 - self.dampening * (step > 0).to(fresh.dtype))
            momentum_buffer.mul_(self.momentum).add_(fresh)
            if self.nesterov:
                direction = torch.add(direction, momentum_buffer, alpha=self.momentum)
            else:
                direction = momentum_buffer
        parameter.addcmul_(direction, lr, value=-1.0)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), as torch.optim.Adam; weight decay joins the gradient.

    g = grad + weight_decay p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  t = step + 1;
    p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps).
    """

    lr: Rate = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    weight_decay: Rate = 0.0
    decoupled: ClassVar[bool] = False  # whether weight decay stays out of the gradient

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        return {"exp_avg": StateSpec(parameter.shape), "exp_avg_sq": StateSpec(parameter.shape)}

    def decay(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> Tensor:
        """The gradient with weight decay in it."""
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
        # Corrections in float64: 1 - b2^t is 1e-3 in the first step, too little for float32.
        t = (step + 1).to(torch.float64)
        step_size = (lr / (1.0 - torch.pow(beta1, t))).to(parameter.dtype)
        root = torch.sqrt(1.0 - torch.pow(beta2, t)).to(parameter.dtype)
        denominator = exp_avg_sq.sqrt().div_(root).add_(self.eps)
        parameter.addcmul_(exp_avg / denominator, step_size, value=-1.0)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW.

    p -= lr weight_decay p, then Adam's step without decay in the gradient.
    """

    weight_decay: Rate = 1e-2
    decoupled: ClassVar[bool] = True

    def decay(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> Tensor:
        if self.weight_decay:
            parameter.mul_(1.0 - lr * self.weight_decay)
        return grad


class Schedule(Definition):
    """The learning rate over a run, as a factor of the optimizer's."""

    def factor(self, step: int, total: int) -> float:
        """The factor in step 0 .. total - 1 of a run of `total` steps."""
        raise ContractError(f"{type(self).__name__} defines no factor(step, total)")


class ConstantSchedule(Schedule):
    """The same rate throughout."""

    def factor(self, step: int, total: int) -> float:
        return 1.0


class WarmUp(Schedule):
    """A linear rise over the first `steps` steps, then the same rate."""

    steps: Annotated[int, Field(gt=0)]

    def factor(self, step: int, total: int) -> float:
        return min(1.0, (step + 1) / self.steps)


class Cosine(Schedule):
    """Half a cosine from 1 down to `final` (Loshchilov & Hutter 2017, eq. 5), after a linear rise.

    >>> [round(Cosine().factor(step, 4), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """

    final: Fraction = 0.0
    warm_up_steps: Annotated[int, Field(ge=0)] = 0

    def factor(self, step: int, total: int) -> float:
        if step < self.warm_up_steps:
            return (step + 1) / self.warm_up_steps
        progress = (step - self.warm_up_steps) / max(1, total - self.warm_up_steps)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))


class OneCycle(Schedule):
    """One cycle (Smith & Topin 2018), as torch's OneCycleLR with cosine annealing.

    Rises from 1 / div_factor to 1 over the first `pct_start` of the steps, then falls to
    1 / (div_factor * final_div_factor).
    """

    pct_start: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    div_factor: Annotated[float, Field(ge=1.0)] = 25.0
    final_div_factor: Annotated[float, Field(ge=1.0)] = 1e4

    def factor(self, step: int, total: int) -> float:
        low, end = 1.0 / self.div_factor, 1.0 / (self.div_factor * self.final_div_factor)
        rise = self.pct_start * total - 1.0
        if step < rise:
            return _anneal(low, 1.0, step / rise)
        return _anneal(1.0, end, min(1.0, (step - rise) / (total - 1.0 - rise)))


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))

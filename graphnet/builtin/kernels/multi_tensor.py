"""Multi-tensor: torch's fused and foreach operators, for all parameters on a GPU in a few launches.

The update of a few thousand weights takes less time than launching its operators. All gradients stay alive
until the last one exists. On a CPU, where a call costs little and memory counts, updates therefore stay
separate.

torch.ops.graphnet.fused_sgd(parameters, grads, buffers, lr, weight_decay, momentum, nesterov, finite)
torch.ops.graphnet.fused_adam(parameters, grads, exp_avgs, exp_avg_sqs, lr, step, betas, eps, weight_decay,
                              decoupled, finite)
    What SGD, and Adam or AdamW (`decoupled`), do in their `update` to each parameter: torch's own fused
    operators, with shapes too.

float32; gradients of other dtypes and strides are copied first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.optimizers.adam import Adam, AdamW
from graphnet.builtin.optimizers.sgd import SGD
from graphnet.sdk import (
    DTYPES,
    AddTo,
    Cast,
    Clear,
    Definition,
    Follow,
    MultiTensorKernel,
    Scaled,
    Spec,
    Tensors,
    no_results,
    register_operator,
)

DEVICES = frozenset({"cuda"})


def _sgd(
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    lr: Tensor,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    finite: Tensor | None,
) -> None:
    torch.ops.aten._fused_sgd_.tensor_lr(
        list(parameters),
        _alike(grads, parameters),
        list(buffers),
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,  # buffers are 0 before it
        found_inf=_found_inf(finite),
    )


def _adam(
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    lr: Tensor,
    step: Tensor,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
    finite: Tensor | None,
) -> None:
    aten = torch.ops.aten
    operator = aten._fused_adamw_.tensor_lr if decoupled else aten._fused_adam_.tensor_lr
    count = (step + 1).to(torch.float32)
    operator(
        list(parameters),
        _alike(grads, parameters),
        list(exp_avgs),
        list(exp_avg_sqs),
        [],
        [count] * len(parameters),
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
        found_inf=_found_inf(finite),
    )


def _found_inf(finite: Tensor | None) -> Tensor | None:
    """The argument found_inf of torch's operators: 1.0 if nothing must be written."""
    return None if finite is None else finite.logical_not().to(torch.float32)


def _alike(grads: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients in the dtypes and strides of the parameters, as torch takes them."""
    pairs = list(zip(grads, parameters, strict=True))
    made = {i: torch.empty_like(p) for i, (g, p) in enumerate(pairs) if not _fits(g, p)}
    if made:
        torch._foreach_copy_(list(made.values()), [grads[i] for i in made])
    return [made.get(i, grad) for i, grad in enumerate(grads)]


def _fits(grad: Tensor, parameter: Tensor) -> bool:
    return grad.dtype == parameter.dtype and lie_alike(grad, parameter)


def lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape have the same strides; an axis of size 1 may have any.

    >>> lie_alike(torch.empty(2, 3), torch.empty(3, 2).t())
    False
    """
    axes = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or mine == theirs for size, mine, theirs in axes)


def _copies(parameters: Sequence[Tensor], grads: Sequence[Tensor], *_: Any) -> list[Tensor]:
    pairs = zip(parameters, grads, strict=True)
    return [torch.empty_like(p) for p, grad in pairs if not _fits(grad, p)]


fused_sgd = register_operator(
    "fused_sgd(Tensor(a!)[] parameters, Tensor[] grads, Tensor(b!)[] buffers, Tensor lr, "
    "float weight_decay, float momentum, bool nesterov, Tensor? finite) -> ()",
    _sgd,
    no_results,
    devices=("CPU", "CUDA"),
    scratch=_copies,
)
fused_adam = register_operator(
    "fused_adam(Tensor(a!)[] parameters, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
    "Tensor lr, Tensor step, float[] betas, float eps, float weight_decay, bool decoupled, "
    "Tensor? finite) -> ()",
    _adam,
    no_results,
    devices=("CPU", "CUDA"),
    scratch=_copies,
)


class Foreach(MultiTensorKernel):
    """Base of the kernels by torch's operators for many tensors: they match float32 on a GPU."""

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> Self | None:
        there = specs[0].device.type in DEVICES and specs[0].dtype == torch.float32
        return cls(rule=rule) if there else None


class FusedSGD(Foreach):
    """sgd of all parameters: torch's fused operator.

    It does not match dampening, for which the first step differs, and torch's operator takes the step from
    Python.
    """

    replaces: ClassVar[type[Definition]] = SGD
    casts: ClassVar[bool] = True
    skips: ClassVar[bool] = True
    rule: SGD

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> Self | None:
        assert isinstance(rule, SGD)
        return None if rule.dampening else super().match(rule, specs)

    def run(
        self,
        parameters: Tensors,
        grads: Tensors,
        lr: Tensor,
        step: Tensor,
        momentum_buffers: Tensors | None,
        finite: Tensor | None = None,
    ) -> None:
        rule, buffers = self.rule, momentum_buffers or ()
        fused_sgd(
            *(parameters, grads, buffers, lr),
            *(rule.weight_decay, rule.momentum, rule.nesterov, finite),
        )


class FusedAdam(Foreach):
    """adam of all parameters: torch's fused operator."""

    replaces: ClassVar[type[Definition]] = Adam
    casts: ClassVar[bool] = True
    skips: ClassVar[bool] = True
    operator: ClassVar[Any] = fused_adam  # or another with its arguments
    rule: Adam

    def run(
        self,
        parameters: Tensors,
        grads: Tensors,
        lr: Tensor,
        step: Tensor,
        exp_avgs: Tensors,
        exp_avg_sqs: Tensors,
        finite: Tensor | None = None,
    ) -> None:
        rule = self.rule
        self.operator(
            *(parameters, grads, exp_avgs, exp_avg_sqs, lr, step),
            *(rule.betas, rule.eps, rule.weight_decay, rule.decoupled, finite),
        )


class FusedAdamW(FusedAdam):
    """adamw of all parameters: torch's fused operator."""

    replaces: ClassVar[type[Definition]] = AdamW


def _copied(xs: Tensors, dtype: torch.dtype) -> Tensors:
    made = tuple(torch.empty_like(x, dtype=dtype) for x in xs)
    torch._foreach_copy_(made, xs)
    return made


class ForeachCast(Foreach):
    """Casts of all parameters: one copy of many tensors."""

    replaces: ClassVar[type[Definition]] = Cast
    rule: Cast

    def run(self, xs: Tensors) -> Tensors:
        return _copied(xs, DTYPES[self.rule.dtype])


class ForeachScaled(Foreach):
    """All gradients times one factor."""

    replaces: ClassVar[type[Definition]] = Scaled
    casts: ClassVar[bool] = True

    def run(self, xs: Tensors, factor: Tensor) -> Tensors:
        made = _copied(xs, torch.float32)
        torch._foreach_mul_(made, factor)
        return made


class ForeachFollow(Foreach):
    """The moving averages of all parameters, in a few launches."""

    replaces: ClassVar[type[Definition]] = Follow

    def run(self, averages: Tensors, parameters: Tensors, rate: Tensor) -> None:
        ways = torch._foreach_sub(parameters, averages)
        torch._foreach_mul_(ways, rate.to(averages[0].dtype))
        torch._foreach_add_(averages, ways)


class ForeachAddTo(Foreach):
    """Adds the gradients of all parameters to those of earlier batches."""

    replaces: ClassVar[type[Definition]] = AddTo

    def run(self, totals: Tensors, gradients: Tensors) -> None:
        torch._foreach_add_(totals, gradients)


class ForeachClear(Foreach):
    """All slots set to zero."""

    replaces: ClassVar[type[Definition]] = Clear

    def run(self, totals: Tensors) -> None:
        torch._foreach_zero_(totals)


KERNELS: dict[str, type[MultiTensorKernel]] = {
    "aten/sgd": FusedSGD,
    "aten/adam": FusedAdam,
    "aten/adamw": FusedAdamW,
    "aten/cast": ForeachCast,
    "aten/scale": ForeachScaled,
    "aten/ema": ForeachFollow,
    "aten/accumulate": ForeachAddTo,
    "aten/clear": ForeachClear,
}

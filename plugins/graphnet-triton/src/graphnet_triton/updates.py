"""Updates and casts of all parameters in one launch: SGD, Adam, AdamW, moving averages.

torch.ops.graphnet_triton.sgd(parameters, grads, buffers, lr, step, momentum, dampening, weight_decay,
                              nesterov, finite, copies)
torch.ops.graphnet_triton.adam(parameters, grads, exp_avgs, exp_avg_sqs, lr, step, betas, eps, weight_decay,
                               decoupled, finite, copies)
torch.ops.graphnet_triton.follow(averages, parameters, rate)
    The first two do to each parameter what `update` of the rule does, in float32; gradients may have any
    floating dtype. They also write the new parameters into the `copies`, if there are any, in their dtype.
torch.ops.graphnet_triton.cast(xs, dtype)
    The tensors in another dtype.

The blocks of all tensors are numbered, so a large weight is computed by as many programs as it has blocks.
torch's fused optimizers use one for each 65,536 elements, which leaves most of a GPU idle if a network is
small. A flat buffer would need a copy of all gradients; here each tensor stays where it is, and its address
is an argument. A launch takes up to 64 tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin import SGD, Adam, AdamW, lie_alike
from graphnet.sdk import (
    DTYPES,
    Cast,
    Definition,
    Follow,
    MultiTensorKernel,
    Spec,
    Tensors,
    no_results,
)
from graphnet_triton.launch import NAMES, ceil_div, register, runs_on
from graphnet_triton.programs import updates

_BLOCK = 1024
_MOST = 64  # tensors in a launch: up to seven numbers for each go into the 4 KiB that arguments may take


def launch(
    program: Any, *columns: Sequence[Tensor], given: Sequence[Tensor | None] = (), **constants: Any
) -> None:
    """Launch a program over the elements of tensors.

    The i-th tensors of all columns have one size and equal strides. Tensors of other
    dtypes go into another launch; `given` and `constants` are the program's own arguments.
    """
    alike: dict[tuple[torch.dtype, ...], list[tuple[Tensor, ...]]] = {}
    for row in zip(*columns, strict=True):
        if row[0].numel():
            alike.setdefault(tuple(tensor.dtype for tensor in row), []).append(row)
    for dtypes, rows in alike.items():
        for begin in range(0, len(rows), _MOST):
            part = rows[begin : begin + _MOST]
            sizes = [row[0].numel() for row in part]
            *starts, total = accumulate((ceil_div(size, _BLOCK) for size in sizes), initial=0)
            program[(total,)](
                tuple(
                    tuple(tensor.data_ptr() for tensor in column)
                    for column in zip(*part, strict=True)
                ),
                *(tuple(starts), tuple(sizes), *given),
                COUNT=len(part),
                TYPES=tuple(NAMES[dtype] for dtype in dtypes),
                BLOCK=_BLOCK,
                **constants,
            )


def _as(parameters: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients, copied where their strides differ from those of their parameters."""
    pairs = list(zip(grads, parameters, strict=True))
    return [g if lie_alike(g, p) else _room(p, g).copy_(g) for g, p in pairs]


def _room(parameter: Tensor, grad: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=grad.dtype)


def _scratch(parameters: Sequence[Tensor], grads: Sequence[Tensor], *_: Any) -> list[Tensor]:
    pairs = zip(parameters, grads, strict=True)
    return [_room(p, g) for p, g in pairs if not lie_alike(g, p)]


def _sgd(
    parameters: Sequence[Tensor],
    grads: Sequence[Tensor],
    buffers: Sequence[Tensor],
    lr: Tensor,
    step: Tensor,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    finite: Tensor | None,
    copies: Sequence[Tensor],
) -> None:
    columns = (parameters, _as(parameters, grads), *((buffers,) if momentum else ()))
    launch(
        *(updates.sgd, *columns, *((copies,) if copies else ())),
        given=(lr, step, finite),
        MOMENTUM=momentum,
        DAMPENING=dampening,
        WEIGHT_DECAY=weight_decay,
        NESTEROV=nesterov,
        COPIES=bool(copies),
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
    copies: Sequence[Tensor],
) -> None:
    columns = (parameters, _as(parameters, grads), exp_avgs, exp_avg_sqs)
    launch(
        *(updates.adam, *columns, *((copies,) if copies else ())),
        given=(lr, step, finite),
        LOG_BETAS=tuple(math.log(beta) if beta else -math.inf for beta in betas),
        SHARES=tuple(1.0 - beta for beta in betas),
        EPS=eps,
        WEIGHT_DECAY=weight_decay,
        DECOUPLED=decoupled,
        COPIES=bool(copies),
    )


def _follow(averages: Sequence[Tensor], parameters: Sequence[Tensor], rate: Tensor) -> None:
    launch(updates.follow, averages, parameters, given=(rate,))


def _cast(xs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    made = _casts(xs, dtype)
    launch(updates.cast, made, xs)
    return made


def _casts(xs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [torch.empty_like(x, dtype=dtype) for x in xs]


sgd = register(
    "sgd(Tensor(a!)[] parameters, Tensor[] grads, Tensor(b!)[] buffers, Tensor lr, Tensor step, "
    "float momentum, float dampening, float weight_decay, bool nesterov, Tensor? finite, "
    "Tensor(c!)[] copies) -> ()",
    _sgd,
    no_results,
    scratch=_scratch,
)
adam = register(
    "adam(Tensor(a!)[] parameters, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
    "Tensor lr, Tensor step, float[] betas, float eps, float weight_decay, bool decoupled, "
    "Tensor? finite, Tensor(d!)[] copies) -> ()",
    _adam,
    no_results,
    scratch=_scratch,
)
follow = register(
    "follow(Tensor(a!)[] averages, Tensor[] parameters, Tensor rate) -> ()", _follow, no_results
)
cast = register("cast(Tensor[] xs, ScalarType dtype) -> Tensor[]", _cast, _casts)


class _Updates(MultiTensorKernel):
    """Base of the kernels: they match float32 parameters on a GPU."""

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> Self | None:
        there = specs[0].dtype == torch.float32 and runs_on(specs[0].device, specs[0])
        return cls(rule=rule) if there else None


class _Optimizes(_Updates):
    """Base of the optimizers: they read narrow gradients, write copies, and can leave a step out."""

    casts: ClassVar[bool] = True
    skips: ClassVar[bool] = True
    copies: ClassVar[bool] = True


class TritonSGD(_Optimizes):
    """sgd of all parameters."""

    replaces: ClassVar[type[Definition]] = SGD
    rule: SGD

    def run(
        self,
        parameters: Tensors,
        grads: Tensors,
        lr: Tensor,
        step: Tensor,
        momentum_buffers: Tensors | None,
        finite: Tensor | None = None,
        copies: Tensors | None = None,
    ) -> None:
        rule, buffers = self.rule, momentum_buffers or ()
        sgd(
            *(parameters, grads, buffers, lr, step, rule.momentum, rule.dampening),
            *(rule.weight_decay, rule.nesterov, finite, copies or ()),
        )


class TritonAdam(_Optimizes):
    """adam of all parameters."""

    replaces: ClassVar[type[Definition]] = Adam
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
        copies: Tensors | None = None,
    ) -> None:
        rule = self.rule
        adam(
            *(parameters, grads, exp_avgs, exp_avg_sqs, lr, step, rule.betas, rule.eps),
            *(rule.weight_decay, rule.decoupled, finite, copies or ()),
        )


class TritonAdamW(TritonAdam):
    """adamw of all parameters."""

    replaces: ClassVar[type[Definition]] = AdamW


class TritonFollow(_Updates):
    """The moving averages of all parameters."""

    replaces: ClassVar[type[Definition]] = Follow

    def run(self, averages: Tensors, parameters: Tensors, rate: Tensor) -> None:
        follow(averages, parameters, rate)


class TritonCast(_Updates):
    """Casts of all parameters."""

    replaces: ClassVar[type[Definition]] = Cast
    rule: Cast

    def run(self, xs: Tensors) -> Tensors:
        return tuple(cast(xs, DTYPES[self.rule.dtype]))


KERNELS: dict[str, type[MultiTensorKernel]] = {
    "triton/sgd": TritonSGD,
    "triton/adam": TritonAdam,
    "triton/adamw": TritonAdamW,
    "triton/ema": TritonFollow,
    "triton/cast": TritonCast,
}

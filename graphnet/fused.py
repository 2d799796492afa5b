"""Fused: torch's optimizers for many tensors at once, as operators that have shapes too.

torch.ops.graphnet.fused_sgd(parameters, grads, buffers, lr, weight_decay, momentum, nesterov)
torch.ops.graphnet.fused_adam(parameters, grads, exp_avgs, exp_avg_sqs, lr, step, betas, eps, weight_decay,
                              decoupled)
    What SGD, and Adam or AdamW (`decoupled`), do in their `update` to each parameter.

float32; gradients of other dtypes and strides are copied first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphnet.operators import no_results, register

Tensors = Sequence[Tensor]


def _sgd(
    parameters: Tensors,
    grads: Tensors,
    buffers: Tensors,
    lr: Tensor,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
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
    )


def _adam(
    parameters: Tensors,
    grads: Tensors,
    exp_avgs: Tensors,
    exp_avg_sqs: Tensors,
    lr: Tensor,
    step: Tensor,
    betas: Sequence[float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
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
    )


def _alike(grads: Tensors, parameters: Tensors) -> list[Tensor]:
    """Gradients in the dtypes and strides of the parameters, as torch takes them."""
    return [
        grad
        if (grad.dtype, grad.stride()) == (parameter.dtype, parameter.stride())
        else torch.empty_like(parameter).copy_(grad)
        for grad, parameter in zip(grads, parameters, strict=True)
    ]


fused_sgd = register(
    "fused_sgd(Tensor(a!)[] parameters, Tensor[] grads, Tensor(b!)[] buffers, Tensor lr, "
    "float weight_decay, float momentum, bool nesterov) -> ()",
    _sgd,
    no_results,
    devices=("CPU", "CUDA"),
)
fused_adam = register(
    "fused_adam(Tensor(a!)[] parameters, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, "
    "Tensor lr, Tensor step, float[] betas, float eps, float weight_decay, bool decoupled) -> ()",
    _adam,
    no_results,
    devices=("CPU", "CUDA"),
)

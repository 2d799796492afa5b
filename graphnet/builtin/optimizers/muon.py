"""Muon: momentum for matrices, made nearly orthogonal before each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from graphnet.builtin.optimizers.adam import AdamW
from graphnet.sdk import Fraction, Optimizer, Rate, Spec, StateSpec

# After more steps on one Gram matrix, eigenvalues that rounding has made negative would grow too large.
_STEPS_ON_GRAM = 5


class Muon(Optimizer):
    """Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers"), as torch.optim.Muon.

    A parameter is reshaped to a matrix of its first axis by all others, (O, C kh kw) for a convolution. With
    b the momentum buffer, 0 before the first step,
        b += (1 - momentum) (grad - b);  d = grad + momentum (b - grad) with nesterov, else b;
        p -= lr weight_decay p;  p -= lr r NS(d).
    NS replaces the singular values of d by numbers near 1: X = d / max(|d|, eps), then `ns_steps` times
        X <- P X,  P = a I + b A + c A A,  A = X X^T,  (a, b, c) = ns_coefficients,
    on the transpose if d has more rows than columns. All P and A have the eigenvectors of the first A, so the
    iteration runs on A, A <- P A P, and the product of all P is applied to X: half the operations if d is
    wide. The dtype is float32 at least; torch iterates on X in bfloat16, whose rounding changes NS(d) by
    about 1.5 %. The factor r depends on the shape: sqrt(max(1, rows / columns)) for "original",
    0.2 sqrt(max(rows, columns)) for "match_rms_adamw" (Liu et al. 2025).

    AdamW updates the parameters with fewer than two axes, such as biases, with the same weight_decay and with
    `adamw_lr`, `adamw_betas` and `adamw_eps`. A schedule scales both learning rates by the same factor.

    >>> Muon(lr=0.02).rule_for(Spec((16,)))
    AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.1)
    """

    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    weight_decay: Rate = 0.1
    momentum: Rate = 0.95
    nesterov: bool = True
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315)
    eps: Annotated[float, Field(gt=0.0)] = 1e-7
    ns_steps: Annotated[int, Field(ge=0, lt=100)] = 5
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original"
    adamw_lr: Rate = 1e-3
    adamw_betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    adamw_eps: Annotated[float, Field(gt=0.0)] = 1e-8

    def rule_for(self, parameter: Spec) -> Optimizer:
        if len(parameter.shape) >= 2:
            return self
        return AdamW(
            lr=self.adamw_lr,
            betas=self.adamw_betas,
            eps=self.adamw_eps,
            weight_decay=self.weight_decay,
        )

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        return {"momentum_buffer": StateSpec(parameter.shape)}

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor, momentum_buffer: Tensor) -> None:
        momentum_buffer.lerp_(grad, 1.0 - self.momentum)
        direction = grad.lerp(momentum_buffer, self.momentum) if self.nesterov else momentum_buffer
        matrix = direction.flatten(1)
        step = self.orthogonal(matrix).to(parameter.dtype).reshape(parameter.shape)
        if self.weight_decay:
            parameter.mul_(1.0 - lr * self.weight_decay)
        parameter.addcmul_(step, lr, value=-self.ratio(*matrix.shape))

    def orthogonal(self, matrix: Tensor) -> Tensor:
        """Return NS(matrix): the same singular vectors, with singular values near 1."""
        a, b, c = self.ns_coefficients
        tall = matrix.shape[0] > matrix.shape[1]
        x: Tensor = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        x = x.T if tall else x
        x = x / x.norm().clamp(min=self.eps)  # now no singular value is larger than 1
        identity = torch.eye(len(x), dtype=x.dtype, device=x.device)

        def polynomial(gram: Tensor) -> Tensor:
            return torch.addmm(a * identity + b * gram, gram, gram, alpha=c)

        for first in range(0, self.ns_steps, _STEPS_ON_GRAM):
            gram = x @ x.T
            product = step = polynomial(gram)
            for _ in range(1, min(_STEPS_ON_GRAM, self.ns_steps - first)):
                gram = step @ gram @ step
                step = polynomial(gram)
                product = step @ product
            x = product @ x
        return x.T if tall else x

    def ratio(self, rows: int, columns: int) -> float:
        """Return r, the factor of the learning rate for a matrix of this shape."""
        if self.adjust_lr_fn == "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        return math.sqrt(max(1.0, rows / columns))

"""Smooth activations, elementwise, for any shape and strides; backward keeps x."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from graphnet.sdk import Layer


class GELU(Layer):
    """x Phi(x), elementwise, with Phi the normal distribution function, as torch.nn.GELU.

    Hendrycks & Gimpel 2016, section 2. The derivative is Phi(x) + x Phi'(x). With approximate "none",
        Phi(x) = erfc(-x / sqrt(2)) / 2,  Phi'(x) = exp(-x^2 / 2) / sqrt(2 pi);
    with "tanh", their approximation,
        Phi(x) = (1 + tanh(u)) / 2,  u = sqrt(2 / pi) (x + 0.044715 x^3),
    computed as the sigmoid s(2 u), which is equal but loses no digits where x << 0; Phi'(x) = 2 u' s (1 - s).
    x, y: any shape. y is finite for every finite x; -inf gives NaN, as in torch. Backward keeps x.

    >>> GELU(approximate="tanh").forward(torch.zeros(1))
    tensor([0.])
    """

    pointwise: ClassVar[bool] = True
    approximate: Literal["none", "tanh"] = "none"

    def phi(self, x: Tensor) -> Tensor:
        """Phi(x)."""
        if self.approximate == "none":
            return 0.5 * torch.erfc(x * -math.sqrt(0.5))
        return torch.sigmoid(2 * _SQRT_2_PI * x * (1 + _CUBIC * x * x))

    def slope(self, x: Tensor) -> Tensor:
        """Phi'(x)."""
        if self.approximate == "none":
            return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        x = x.clamp(-_FAR, _FAR)
        s = self.phi(x)
        return 2 * _SQRT_2_PI * (1 + 3 * _CUBIC * x * x) * s * (1 - s)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.phi(x)

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        return grad_y * (self.phi(x) + x * self.slope(x))


_SQRT_2_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715
_FAR = 30.0  # above it s is 0 or 1 in every dtype, but x^2 could overflow, and 0 * inf is NaN


class SiLU(Layer):
    """x s(x), elementwise, with s the sigmoid, as torch.nn.SiLU (Elfwing et al. 2018).

    The derivative is s (1 + x (1 - s)).
    x, y: any shape. y is finite for every finite x; -inf gives NaN, as in torch. Backward keeps only x, and
    computes s again.
    """

    pointwise: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        s = torch.sigmoid(x)
        return grad_y * (s * (1 + x * (1 - s)))


class Softplus(Layer):
    """log(1 + exp(beta x)) / beta, elementwise, as torch.nn.Softplus (Dugas et al. 2001).

    Where beta x > threshold, y is x and the derivative 1; elsewhere the derivative is the sigmoid of beta x.
    To avoid overflow, y is computed as (max(z, 0) + log(1 + exp(-|z|))) / beta, with z = beta x.
    x, y: any shape. Backward keeps x, since y does not show on which side of the threshold x was.

    >>> Softplus(beta=2.0).threshold
    20.0
    """

    pointwise: ClassVar[bool] = True
    beta: PositiveFloat = 1.0
    threshold: float = 20.0

    def forward(self, x: Tensor) -> Tensor:
        z = self.beta * x
        soft = (z.clamp_min(0) + (-z.abs()).exp().log1p()) / self.beta
        return x.where(z > self.threshold, soft)

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        z = self.beta * x
        return grad_y.where(z > self.threshold, grad_y * torch.sigmoid(z))

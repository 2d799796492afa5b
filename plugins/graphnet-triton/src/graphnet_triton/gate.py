"""simple_gate on images in channels_last: one kernel forward, one in reverse.

torch.ops.graphnet_triton.gate(x): the product of the two halves of the channels of (N, C, H, W).
torch.ops.graphnet_triton.gate_gradient(grad, x): the gradient of x.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.sdk import Kernel, Precision, Site
from graphnet_triton.launch import ceil_div, nhwc_like, register, runs_on, sums_of
from graphnet_triton.programs import gates

_BLOCK = 1024
_LAST = torch.channels_last


def _gate_shape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return torch.empty((n, c // 2, h, w), dtype=x.dtype, device=x.device, memory_format=_LAST)


def _gate(x: Tensor) -> Tensor:
    y = _gate_shape(x)
    x = x.contiguous(memory_format=_LAST)
    gates.gate[(ceil_div(y.numel(), _BLOCK),)](
        x, y, y.numel(), HALF=y.shape[1], SUM=sums_of(x), BLOCK=_BLOCK
    )
    return y


def _gradient_shape(grad: Tensor, x: Tensor) -> Tensor:
    return nhwc_like(x)


def _gradient(grad: Tensor, x: Tensor) -> Tensor:
    grad_x = _gradient_shape(grad, x)
    grad, x = grad.contiguous(memory_format=_LAST), x.contiguous(memory_format=_LAST)
    gates.gate_gradient[(ceil_div(grad.numel(), _BLOCK),)](
        grad, x, grad_x, grad.numel(), HALF=grad.shape[1], SUM=sums_of(x), BLOCK=_BLOCK
    )
    return grad_x


gate = register("gate(Tensor x) -> Tensor", _gate, _gate_shape)
gate_gradient = register(
    "gate_gradient(Tensor grad, Tensor x) -> Tensor", _gradient, _gradient_shape
)


class TritonSimpleGate(Kernel):
    """simple_gate on images; it does not match other numbers of axes, or empty images."""

    replaces = "simple_gate(x)"
    precision: ClassVar[Precision] = "follow"
    memory_formats: ClassVar[dict[str, torch.memory_format]] = {"x": _LAST}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        x = site.specs["x"]
        if x is None or len(x.shape) != 4 or x.shape[1] % 2 or not x.numel:
            return None
        return cls() if runs_on(site.device, x) else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = gate(x)
        return y

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        grad_x: Tensor = gate_gradient(grad_y, x)
        return grad_x


KERNELS: dict[str, type[Kernel]] = {"triton/simple_gate": TritonSimpleGate}

"""conv2d with its relu: torch's convolution, and one pass for bias and relu in each direction.

torch.ops.graphnet_triton.conv2d_relu(x, weight, bias, stride, padding, dilation, groups)
    relu(conv2d(x, weight, bias)), an image in channels_last.
torch.ops.graphnet_triton.mask_and_sum(grad, y)
    grad where y is above 0, else 0, in channels_last, and its sum over all pixels: (C,) in float32.

Without this kernel, torch adds the bias in one pass and computes relu in another; in reverse, it masks and
sums in two passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from graphnet.builtin import AtenConv2d, Correlation
from graphnet.sdk import Gradients, Kernel, Site
from graphnet_triton.launch import WIDE, ceil_div, nhwc_like, register, runs_on, side, sums_of
from graphnet_triton.programs import biases
from graphnet_triton.shares import add_up, cut

_LAST = torch.channels_last
_BLOCK = 1024  # elements that a program takes at once

Two = tuple[Tensor, Tensor]


def _conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    y = _conv2d(x, weight, bias, stride, padding, dilation, groups)
    biases.bias_relu[(ceil_div(y.numel(), _BLOCK),)](
        *(y, bias.contiguous(), y.numel()), C=y.shape[1], SUM=sums_of(y), BLOCK=_BLOCK
    )
    return y


@torch.no_grad()  # autograd, where there is one, would see the convolution but not what is behind it
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor, *others: Any) -> Tensor:
    """The convolution without bias and relu, in channels_last."""
    *sizes, groups = others
    y: Tensor = torch.ops.aten.convolution.default(x, weight, None, *sizes, False, (0, 0), groups)
    return y.contiguous(memory_format=_LAST)


def _shapes(grad: Tensor, y: Tensor) -> Two:
    return nhwc_like(grad), grad.new_empty((y.shape[1],), dtype=WIDE[grad.dtype])


def _blocks(y: Tensor) -> tuple[int, int, int, int]:
    """Channels and pixels that a program takes at once; shares, and the steps of each."""
    channels, wide = y.shape[1], side(y.shape[1])
    count, steps = cut(y.numel() // channels, 4096 // wide, tiles=ceil_div(channels, wide))
    return wide, 4096 // wide, count, steps


def _shares(grad: Tensor, y: Tensor) -> list[Tensor]:
    *_, count, _steps = _blocks(y)
    return [grad.new_empty((count, y.shape[1]), dtype=WIDE[grad.dtype])]


def _mask_and_sum(grad: Tensor, y: Tensor) -> Two:
    masked, of_bias = _shapes(grad, y)
    grad, y = grad.contiguous(memory_format=_LAST), y.contiguous(memory_format=_LAST)
    channels = y.shape[1]
    wide, at_once, count, steps = _blocks(y)
    (shares,) = _shares(grad, y)
    biases.mask_and_sum[ceil_div(channels, wide), count](
        *(grad, y, masked, shares, y.numel() // channels),
        C=channels,
        SUM=sums_of(grad),
        STEPS=steps,
        BP=at_once,
        BC=wide,
    )
    add_up(shares, of_bias, None)
    return masked, of_bias


conv2d_relu = register(
    "conv2d_relu(Tensor x, Tensor weight, Tensor bias, int[] stride, int[] padding, int[] dilation, "
    "int groups) -> Tensor",
    _conv2d_relu,
    _conv2d,
)
register_flop_formula(conv2d_relu)(
    lambda x, weight, *_, out_shape, **__: conv_flop_count(x, weight, out_shape)
)
mask_and_sum = register(
    "mask_and_sum(Tensor grad, Tensor y) -> (Tensor, Tensor)",
    _mask_and_sum,
    _shapes,
    scratch=_shares,
)


class TritonConv2dBiasReLU(Kernel):
    """conv2d with a bias, and relu; it does not match empty batches."""

    replaces = "relu(conv2d(x, weight, bias))"
    memory_formats: ClassVar[Mapping[str, torch.memory_format]] = AtenConv2d.memory_formats
    conv: AtenConv2d

    @classmethod
    def match(cls, site: Site) -> Self | None:
        layer, x, weight = site.layers[1], site.specs["x"], site.specs["weight"]
        if x is None or weight is None or site.specs["bias"] is None or not x.numel:
            return None
        assert isinstance(layer, Correlation)
        elements = x.shape[0] * weight.shape[0] * math.prod(layer.places(x.shape))
        conv = AtenConv2d.match(replace(site, layers=(layer,)))
        if conv is None or conv.border or not elements or not runs_on(site.device, x, elements):
            return None
        return cls(conv=conv)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        conv = self.conv
        sizes = conv.stride, conv.padding, conv.dilation
        y: Tensor = conv2d_relu(x, weight, bias, *sizes, conv.groups)
        return y

    def backward(
        self, grad_y: Tensor, x: Tensor, y: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        masked, of_bias = mask_and_sum(grad_y, y)
        grad_x, grad_weight, _ = self.conv.backward(masked, x, weight, wanted - {"bias"})
        return grad_x, grad_weight, of_bias if "bias" in wanted else None


KERNELS: dict[str, type[Kernel]] = {"triton/conv2d_bias_relu": TritonConv2dBiasReLU}

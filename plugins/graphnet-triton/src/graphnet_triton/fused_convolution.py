"""conv2d 3x3 as one kernel, with its bias and relu, if that is faster than torch's convolution.

torch.ops.graphnet_triton.fused_conv2d(x, weight, bias, stride, padding, dilation, relu)
    conv2d(x, weight, bias), then relu if `relu`: an image in channels_last. bias may be None.

torch computes a convolution by cuDNN, and then adds the bias and computes relu in a pass of its own, which
reads and writes the whole image once more. cuDNN's kernels are faster for some sizes. So both ways can be
measured when a plan is made, once for each size: see fastest.py. Otherwise torch computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from graphnet.builtin import AtenConv2d, Correlation
from graphnet.sdk import Kernel, Site, Spec
from graphnet_triton import INTERPRETED
from graphnet_triton.convolution import TritonConv2dBiasReLU, conv2d_relu
from graphnet_triton.fastest import Way, fastest
from graphnet_triton.launch import (
    PROCESSORS,
    ceil_div,
    factor_of,
    precision_of,
    register,
    runs_on,
    side,
    sums_of,
)
from graphnet_triton.programs import convolutions

_LAST = torch.channels_last
_KERNEL = (3, 3)
_FUSED = "fused"
_MOST_MEASURED = (
    1 << 26
)  # elements of an image on which both ways are measured: more take no other way


def _shape(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    relu: bool,
) -> Tensor:
    sizes = [
        (size + 2 * pad - spread * (taps - 1) - 1) // step + 1
        for size, taps, step, pad, spread in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    shape = (len(x), len(weight), *sizes)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_LAST)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    relu: bool,
) -> Tensor:
    x, weight = x.contiguous(memory_format=_LAST), weight.contiguous(memory_format=_LAST)
    y = _shape(x, weight, bias, stride, padding, dilation, relu)
    blocks, pixels = _blocks(x, y), y.numel() // y.shape[1]
    programs = ceil_div(pixels, blocks["BM"]) * ceil_div(y.shape[1], blocks["BN"])
    convolutions.convolution[(programs,)](
        *(x, weight, x if bias is None else bias.contiguous(), y),
        *(pixels, *x.shape[2:], *y.shape[2:]),
        C=x.shape[1],
        K=y.shape[1],
        TAPS=tuple(weight.shape[2:]),
        STRIDE=tuple(stride),
        PADDING=tuple(padding),
        DILATION=tuple(dilation),
        BIAS=bias is not None,
        RELU=relu,
        SUM=sums_of(x),
        FACTOR=factor_of(x),
        PRECISION=precision_of(x),
        **blocks,
    )
    return y


def _blocks(x: Tensor, y: Tensor) -> dict[str, int]:
    """What a program takes at once: fewer pixels if there would be too few programs."""
    pixels, wide = y.numel() // y.shape[1], side(y.shape[1], most=128)
    programs = ceil_div(pixels, 128) * ceil_div(y.shape[1], wide)
    high = 128 if programs >= 2 * PROCESSORS else 64  # matrix units take no fewer rows
    return {
        "BM": high,
        "BN": wide,
        "BK": side(x.shape[1], most=64 if x.element_size() == 2 else 32),
        "num_warps": 8 if high * wide > 128 * 64 else 4,
        "num_stages": 3,
    }


fused_conv2d = register(
    "fused_conv2d(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, "
    "bool relu) -> Tensor",
    _convolution,
    _shape,
)
register_flop_formula(fused_conv2d)(
    lambda x, weight, *_, out_shape, **__: conv_flop_count(x, weight, out_shape)
)


def _fits(site: Site, conv: AtenConv2d) -> bool:
    """Whether the kernel computes this convolution: of 16 bits, or of any in Triton's interpreter."""
    layer, x, weight = site.layers[-1], site.specs["x"], site.specs["weight"]
    assert isinstance(layer, Correlation)
    if x is None or weight is None or not x.numel or weight.shape[2:] != _KERNEL:
        return False
    elements = x.shape[0] * weight.shape[0] * math.prod(layer.places(x.shape))
    narrow = x.dtype.itemsize == 2 or INTERPRETED
    whole = not conv.border and conv.groups == 1 and elements > 0
    return narrow and whole and runs_on(site.device, x, elements)


def _is_faster(site: Site, conv: AtenConv2d, *, relu: bool) -> bool:
    """Whether the kernel is faster than torch's convolution; the interpreter has no times to compare."""
    if INTERPRETED:
        return True
    given = {name: _smaller(site.specs[name]) for name in ("x", "weight", "bias")}
    sizes = conv.stride, conv.padding, conv.dilation

    def by_torch() -> Way:
        x, weight, bias = drawn()
        if relu:
            return partial(conv2d_relu, x, weight, bias, *sizes, 1)
        return partial(conv.forward, x, weight, bias)

    def fused() -> Way:
        return partial(fused_conv2d, *drawn(), *sizes, relu)

    def drawn() -> tuple[Any, ...]:
        generator = torch.Generator(site.device).manual_seed(0)
        return tuple(_drawn(spec, generator) for spec in given.values())

    key = {
        "kernel": "graphnet_triton.fused_conv2d, version 1",
        **{name: spec and [*spec.shape] for name, spec in given.items()},
        "dtype": str(given["weight"] and given["weight"].dtype),
        "sizes": [[*size] for size in sizes],
        "relu": relu,
    }
    with torch.no_grad():
        return fastest({"torch": by_torch, _FUSED: fused}, key=key) == _FUSED


def _smaller(spec: Spec | None) -> Spec | None:
    """The spec of fewer images, with fewer rows, if there are more elements than are measured."""
    if spec is None or len(spec.shape) != 4 or spec.numel <= _MOST_MEASURED:
        return spec
    count, channels, high, wide = spec.shape
    count = max(1, min(count, _MOST_MEASURED // (channels * high * wide)))
    high = max(3, min(high, _MOST_MEASURED // (count * channels * wide)))
    return Spec((count, channels, high, wide), spec.dtype, spec.device)


def _drawn(spec: Spec | None, generator: torch.Generator) -> Tensor | None:
    """Random numbers in the place of an argument, in channels_last."""
    if spec is None:
        return None
    made = torch.randn(spec.shape, dtype=spec.dtype, device=spec.device, generator=generator)
    return made.contiguous(memory_format=_LAST) if made.ndim == 4 else made


class FusedConv2dReLU(TritonConv2dBiasReLU):
    """conv2d 3x3 with a bias, and relu, as one kernel."""

    replaces = "relu(conv2d(x, weight, bias))"
    priority = 1  # tried before torch's convolution with a pass for bias and relu

    @classmethod
    def match(cls, site: Site) -> Self | None:
        kernel: Self | None = super().match(site)
        if kernel is None or not _fits(site, kernel.conv):
            return None
        return kernel if _is_faster(site, kernel.conv, relu=True) else None

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        conv = self.conv
        y: Tensor = fused_conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, True)
        return y


class FusedConv2d(AtenConv2d):
    """conv2d 3x3, with or without a bias, as one kernel; its gradients are torch's."""

    replaces = "conv2d(x, weight, bias)"
    priority = 1

    @classmethod
    def match(cls, site: Site) -> Self | None:
        kernel: Self | None = super().match(site)
        if kernel is None or not _fits(site, kernel):
            return None
        return kernel if _is_faster(site, kernel, relu=False) else None

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = fused_conv2d(x, weight, bias, self.stride, self.padding, self.dilation, False)
        return y


KERNELS: dict[str, type[Kernel]] = {
    "triton/fused_conv2d_relu": FusedConv2dReLU,
    "triton/fused_conv2d": FusedConv2d,
}

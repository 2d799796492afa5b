"""Winograd kernels: convolutions 3x3 with stride 1 on a CPU, with a quarter of the multiplications.

F(4x4, 3x3) of Lavin & Gray 2016 ("Fast algorithms for convolutional neural networks", eq. 11): tiles of 4x4
outputs are computed from 6x6 inputs by 36 products for each pair of channels, where the definition has 144.
The gradients use the same maps. `winograd.cpp` has all of them. It is compiled for this machine when a plan
first can use it; without a C++ compiler, no kernel here matches.

The kernels compute in float32 (float64 for float64). Of bfloat16 images, the products too are taken in
bfloat16 and summed in float32, where the processor has instructions for it (AVX512-BF16). Small multiples of
the inputs are added and later cancel, so results are less exact than by the definition: to 3e-6 of the
largest value in float32, and to 1.5e-2 in bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin import Add, Conv2d, ReLU
from graphnet.sdk import ARITHMETIC, Gradients, Kernel, Layer, Site, Spec
from graphnet_cpu import winograd_operators as operators

_MOST_WASTE = 1.5  # pixels in tiles for each one that is wanted
_LEAST_TILES = 64  # of an image or batch: with fewer, the maps of the weights cost too much
_LEAST_CHANNELS = 16
_LEAST_CHANNELS_BFLOAT16 = 24  # where the definition is computed at twice the speed


class _Winograd(Kernel):
    """Base of the Winograd kernels: the places that they match, and the products."""

    memory_formats: ClassVar[dict[str, torch.memory_format]] = {
        "x": torch.channels_last,
        "weight": torch.channels_last,
    }
    kept: ClassVar[tuple[str, ...]] = ("x", "y")
    overwrites: ClassVar[Mapping[str, str]] = {"grad_x": "x"}
    padding: tuple[int, int]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        layer, x = site.layers[-1], site.specs["x"]
        assert isinstance(layer, Conv2d)
        if site.device.type != "cpu" or x is None or not _fits(layer) or not _pays(layer, x):
            return None
        left, _, top, _ = layer.pads()
        return cls(padding=(top, left)) if operators.CPP.usable() else None

    def convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        add: Tensor | None = None,
        *,
        relu: bool = False,
    ) -> Tensor:
        """Return x * weight + bias + add, where * is the convolution."""
        y: Tensor = operators.winograd_convolution(
            x, weight, False, self.padding, bias, None, add, relu
        )
        return y

    def gradients(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str], mask: Tensor | None
    ) -> Gradients:
        """Return the gradients of x, weight and bias from grad_y, where `mask` is above 0."""
        grad_x = None
        if "x" in wanted:
            grad_x = operators.winograd_convolution(
                grad_y, weight, True, self.turned_padding, None, mask, None, relu=False
            )
        return grad_x, *self.parameter_gradients(grad_y, x, wanted, mask)

    def gradients_(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str], mask: Tensor | None
    ) -> Gradients:
        """Return the same as `gradients`, with the gradient of x written over x after x has been read."""
        grad_weight, grad_bias = self.parameter_gradients(grad_y, x, wanted, mask)
        operators.winograd_convolution_(
            x, grad_y, weight, True, self.turned_padding, None, mask, adds=False
        )
        return x, grad_weight, grad_bias

    @property
    def turned_padding(self) -> tuple[int, int]:
        """The padding of the convolution that computes the gradient of x."""
        top, left = self.padding
        return 2 - top, 2 - left

    def parameter_gradients(
        self, grad_y: Tensor, x: Tensor, wanted: frozenset[str], mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of weight and bias."""
        if wanted.isdisjoint(("weight", "bias")):
            return None, None
        grad_weight, grad_bias = operators.winograd_gradients(x, grad_y, self.padding, mask)
        return (
            grad_weight if "weight" in wanted else None,
            grad_bias if "bias" in wanted else None,
        )


class WinogradConv2d(_Winograd):
    """conv2d 3x3 with stride 1 by F(4x4, 3x3)."""

    replaces = "conv2d(x, weight, bias)"

    @classmethod
    def samples(cls) -> list[Any]:
        """Samples for the conformance kit that `match` takes."""
        return [(layer, [shape]) for layer, shape in _SAMPLES]

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.convolution(x, weight, bias)

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        return self.gradients(grad_y, x, weight, wanted, None)

    def backward_(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        return self.gradients_(grad_y, x, weight, wanted, None)


class WinogradConv2dReLU(_Winograd):
    """conv2d 3x3 and relu by F(4x4, 3x3); the gradients apply the mask while they read grad_y."""

    replaces = "relu(conv2d(x, weight, bias))"

    @classmethod
    def samples(cls) -> list[Any]:
        """Samples for the conformance kit that `match` takes."""
        return [((ReLU(), layer), [shape]) for layer, shape in _SAMPLES]

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.convolution(x, weight, bias, relu=True)

    def backward(
        self, grad_y: Tensor, x: Tensor, y: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        return self.gradients(grad_y, x, weight, wanted, y)

    def backward_(
        self, grad_y: Tensor, x: Tensor, y: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        return self.gradients_(grad_y, x, weight, wanted, y)


class _Residual(_Winograd):
    """skip + conv2d(x): the sum is part of the convolution, in place where nothing else needs skip."""

    kept: ClassVar[tuple[str, ...]] = ("x",)
    overwrites: ClassVar[Mapping[str, str]] = {"y": "skip", "grad_x": "x"}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        """Match as the convolution alone does, if both images of the sum have one shape and dtype."""
        kernel, (_, layer), x = super().match(site), site.layers, site.specs["x"]
        skip = site.specs["skip"]
        if kernel is None or x is None or skip is None or not isinstance(layer, Conv2d):
            return None
        shape = (x.shape[0], layer.out_channels, *layer.places(x.shape))
        return kernel if (skip.shape, skip.dtype) == (shape, x.dtype) else None

    @classmethod
    def samples(cls) -> list[Any]:
        """Samples for the conformance kit that `match` takes."""
        first = cls.replaces.startswith("add(skip")
        found = []
        for layer, shape in _SAMPLES:
            y = (shape[0], layer.out_channels, *layer.places(shape))
            found.append(((Add(), layer), [y, shape] if first else [shape, y]))
        return found

    def forward(self, skip: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.convolution(x, weight, bias, skip)

    def forward_(self, skip: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        operators.winograd_convolution_(skip, x, weight, False, self.padding, bias, None, adds=True)
        return skip

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, ...]:
        return grad_y, *self.gradients(grad_y, x, weight, wanted, None)

    def backward_(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, ...]:
        return grad_y, *self.gradients_(grad_y, x, weight, wanted, None)


class WinogradResidual(_Residual):
    """skip + conv2d 3x3 of x by F(4x4, 3x3)."""

    replaces = "add(skip, conv2d(x, weight, bias))"


class WinogradConv2dAdd(_Residual):
    """conv2d 3x3 of x by F(4x4, 3x3), plus skip."""

    replaces = "add(conv2d(x, weight, bias), skip)"


def _fits(layer: Conv2d) -> bool:
    """Whether F(4x4, 3x3) computes this layer, and the gradient of x needs no negative padding."""
    left, right, top, bottom = layer.pads()
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.pads_zeros
        and (left, top) == (right, bottom)
        and max(left, top) <= 2
    )


def _pays(layer: Conv2d, x: Spec) -> bool:
    """Whether the maps cost less than the multiplications that they save, as measured on AVX512."""
    least = _LEAST_CHANNELS
    if x.dtype == torch.bfloat16:
        if torch.cpu._is_amx_tile_supported():  # matrix units for bfloat16
            return False
        least = _LEAST_CHANNELS_BFLOAT16
    high, wide = layer.places(x.shape)
    tiles = x.shape[0] * -(-high // operators.TILE) * -(-wide // operators.TILE)
    return (
        x.dtype in ARITHMETIC
        and min(x.shape[1], layer.out_channels) >= least
        and tiles >= _LEAST_TILES
        and tiles * operators.TILE**2 <= _MOST_WASTE * x.shape[0] * high * wide
    )


_SAMPLES = [
    (Conv2d(out_channels=16, kernel_size=(3, 3), padding=(1, 1)), (6, 17, 16, 12)),
    (Conv2d(out_channels=35, kernel_size=(3, 3), padding=(0, 2), bias=False), (5, 16, 15, 13)),
]

KERNELS: dict[str, type[Layer]] = {
    "winograd/conv2d_relu": WinogradConv2dReLU,
    "winograd/residual": WinogradResidual,
    "winograd/conv2d_add": WinogradConv2dAdd,
    "winograd/conv2d": WinogradConv2d,
}

"""ATen kernels of resampling: torch's own operators, whose images stay in channels_last."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.builtin.layers.upsample import LinearInterpolation
from graphnet.sdk import Kernel, Layer, Site, Specs

_aten = torch.ops.aten


class _Linear(Kernel):
    """Linear interpolation by aten's operators, on a CPU.

    CUDA adds up its gradients in any order, so their bits would differ each time.
    """

    operator: ClassVar[Any]
    operator_backward: ClassVar[Any]
    size: tuple[int, ...]
    align_corners: bool
    scale_factor: tuple[float, ...]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, LinearInterpolation)
        if x is None or not x.numel or site.device.type != "cpu":
            return None
        return cls(
            size=layer.size(x.shape),
            align_corners=layer.align_corners,
            scale_factor=layer.scale_factor,
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.operator(x, self.size, self.align_corners, *self.scale_factor)
        return y

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        grad: Tensor = self.operator_backward(
            grad_y, self.size, specs["x"].shape, self.align_corners, *self.scale_factor
        )
        return grad


class AtenLinearUpsampling(_Linear):
    """linear_upsampling by aten's operators, on a CPU, as AtenBilinearUpsampling."""

    replaces = "linear_upsampling(x)"
    operator: ClassVar[Any] = _aten.upsample_linear1d.default
    operator_backward: ClassVar[Any] = _aten.upsample_linear1d_backward.default


class AtenBilinearUpsampling(_Linear):
    """bilinear_upsampling by aten's operators, on a CPU.

    CUDA adds up its gradients in any order, so their bits would differ each time.
    """

    replaces = "bilinear_upsampling(x)"
    operator: ClassVar[Any] = _aten.upsample_bilinear2d.default
    operator_backward: ClassVar[Any] = _aten.upsample_bilinear2d_backward.default


class AtenTrilinearUpsampling(_Linear):
    """trilinear_upsampling by aten's operators, on a CPU, as AtenBilinearUpsampling."""

    replaces = "trilinear_upsampling(x)"
    operator: ClassVar[Any] = _aten.upsample_trilinear3d.default
    operator_backward: ClassVar[Any] = _aten.upsample_trilinear3d_backward.default


class AtenPixelShuffle(Kernel):
    """pixel_shuffle and its gradient by aten's operators; it does not match empty images."""

    replaces = "pixel_shuffle(x)"
    factor: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, PixelShuffle)
        return cls(factor=layer.upscale_factor) if x and x.numel else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.pixel_shuffle.default(x, self.factor)
        return y

    def backward(self, grad_y: Tensor) -> Tensor:
        grad: Tensor = _aten.pixel_unshuffle.default(grad_y, self.factor)
        return grad


class AtenPixelUnshuffle(Kernel):
    """pixel_unshuffle and its gradient by aten's operators; it does not match empty images."""

    replaces = "pixel_unshuffle(x)"
    factor: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, PixelUnshuffle)
        return cls(factor=layer.downscale_factor) if x and x.numel else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.pixel_unshuffle.default(x, self.factor)
        return y

    def backward(self, grad_y: Tensor) -> Tensor:
        grad: Tensor = _aten.pixel_shuffle.default(grad_y, self.factor)
        return grad


KERNELS: dict[str, type[Layer]] = {
    "aten/linear_upsampling": AtenLinearUpsampling,
    "aten/bilinear_upsampling": AtenBilinearUpsampling,
    "aten/trilinear_upsampling": AtenTrilinearUpsampling,
    "aten/pixel_shuffle": AtenPixelShuffle,
    "aten/pixel_unshuffle": AtenPixelUnshuffle,
}

"""ATen kernels of pooling: torch's own operators, fastest in channels_last."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.layers.pool import AvgPool2d, MaxPool2d
from graphnet.sdk import Kernel, Layer, Site, Specs

_aten = torch.ops.aten


class AtenMaxPool2d(Kernel):
    """max_pool2d by aten's; on CUDA it leaves windows that overlap alone.

    Their gradients are added up in any order there, and come out with other bits each time.
    """

    replaces = "max_pool2d(x)"
    saves: ClassVar[tuple[str, ...]] = ("indices",)
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, MaxPool2d)
        overlap = any(s < span for s, span in zip(layer.steps, layer.spans, strict=True))
        if overlap and site.device.type != "cpu":
            return None
        return cls(
            kernel_size=layer.kernel_size,
            stride=layer.steps,
            padding=layer.padding,
            dilation=layer.dilation,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        results: tuple[Tensor, Tensor] = _aten.max_pool2d_with_indices.default(
            x, *self._arguments()
        )
        return results

    def backward(self, grad_y: Tensor, indices: Tensor, specs: Specs) -> Tensor:
        x = _outline(specs["x"].shape, grad_y, order=indices)
        grad: Tensor = _aten.max_pool2d_with_indices_backward.default(
            grad_y, x, *self._arguments(), False, indices
        )
        return grad

    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation


class AtenAvgPool2d(Kernel):
    """avg_pool2d by aten's."""

    replaces = "avg_pool2d(x)"
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    count_include_pad: bool

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, AvgPool2d)
        return cls(
            kernel_size=layer.kernel_size,
            stride=layer.steps,
            padding=layer.padding,
            count_include_pad=layer.count_include_pad,
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _aten.avg_pool2d.default(x, *self._arguments())
        return y

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        x = _outline(specs["x"].shape, grad_y, order=grad_y)
        grad: Tensor = _aten.avg_pool2d_backward.default(grad_y, x, *self._arguments(), None)
        return grad

    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, False, self.count_include_pad


def _outline(shape: tuple[int, ...], like: Tensor, *, order: Tensor) -> Tensor:
    """Memory for an image, in the order of `order`: aten takes x, but reads its shape only."""
    last = order.is_contiguous(memory_format=torch.channels_last) and not order.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)


KERNELS: dict[str, type[Layer]] = {
    "aten/max_pool2d": AtenMaxPool2d,
    "aten/avg_pool2d": AtenAvgPool2d,
}

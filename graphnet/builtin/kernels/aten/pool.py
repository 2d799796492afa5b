"""ATen kernels of pooling: torch's own operators, fastest in channels_last.

torch has them for two and three spatial axes; a signal (N, C, L) is an image of one row to them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.layers.adaptive import AdaptivePooling
from graphnet.builtin.layers.pool import AvgPooling, MaxPooling
from graphnet.sdk import Kernel, Layer, Site, Specs

_aten = torch.ops.aten


class _Operators(Kernel):
    """The base: the operators by their number of axes, and signals as images of one row."""

    axes: ClassVar[int]

    def operator(self, name: str) -> Any:
        """The operator whose name has the number of axes in the place of "{}"."""
        return getattr(_aten, name.format(max(self.axes, 2))).default

    def raised(self, x: Tensor) -> Tensor:
        """A signal as an image of one row; other images as they are."""
        return x.unsqueeze(2) if self.axes == 1 else x

    def lowered(self, y: Tensor) -> Tensor:
        """The image of one row as a signal."""
        return y.squeeze(2) if self.axes == 1 else y

    def sizes(self, sizes: tuple[int, ...], row: int) -> tuple[int, ...]:
        """The numbers of each axis, with that for the row of a signal."""
        return (row, *sizes) if self.axes == 1 else sizes

    def outline(self, shape: tuple[int, ...], like: Tensor, *, order: Tensor) -> Tensor:
        """Memory for an image, in the order of `order`: aten takes x, but reads its shape only."""
        shape = (*shape[:2], 1, *shape[2:]) if self.axes == 1 else shape
        if order.is_contiguous() or order.ndim != 4:
            return torch.empty(shape, dtype=like.dtype, device=like.device)
        last = order.is_contiguous(memory_format=torch.channels_last)
        memory_format = torch.channels_last if last else torch.contiguous_format
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)


class _MaxPool(_Operators):
    """Max pooling by aten's operators; on CUDA it does not match windows that overlap.

    CUDA adds up the gradients of such windows in any order, so their bits would differ each time.
    """

    saves: ClassVar[tuple[str, ...]] = ("indices",)
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, MaxPooling)
        overlap = any(s < span for s, span in zip(layer.steps, layer.windows.spans, strict=True))
        if (overlap and site.device.type != "cpu") or (cls.axes == 3 and (not x or not x.numel)):
            return None
        return cls(
            kernel_size=layer.kernel_size,
            stride=layer.steps,
            padding=layer.padding,
            dilation=layer.dilation,
            ceil_mode=layer.ceil_mode,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, indices = self.operator("max_pool{}d_with_indices")(self.raised(x), *self._arguments())
        return self.lowered(y), indices

    def backward(self, grad_y: Tensor, indices: Tensor, specs: Specs) -> Tensor:
        x = self.outline(specs["x"].shape, grad_y, order=indices)
        grad: Tensor = self.operator("max_pool{}d_with_indices_backward")(
            self.raised(grad_y), x, *self._arguments(), indices
        )
        return self.lowered(grad)

    def _arguments(self) -> tuple[Any, ...]:
        return (
            self.sizes(self.kernel_size, 1),
            self.sizes(self.stride, 1),
            self.sizes(self.padding, 0),
            self.sizes(self.dilation, 1),
            self.ceil_mode,
        )


class AtenMaxPool1d(_MaxPool):
    """max_pool1d by aten's operators, as AtenMaxPool2d."""

    replaces = "max_pool1d(x)"
    axes: ClassVar[int] = 1


class AtenMaxPool2d(_MaxPool):
    """max_pool2d by aten's operators; on CUDA it does not match windows that overlap.

    CUDA adds up the gradients of such windows in any order, so their bits would differ each time.
    """

    replaces = "max_pool2d(x)"
    axes: ClassVar[int] = 2


class AtenMaxPool3d(_MaxPool):
    """max_pool3d by aten's operators, as AtenMaxPool2d."""

    replaces = "max_pool3d(x)"
    axes: ClassVar[int] = 3


class _AvgPool(_Operators):
    """Average pooling by aten's operators; in 3-D on CUDA it does not match windows that overlap.

    It does not match windows that reach beyond the padding (`ceil_mode`) if these count all their pixels:
    Inductor divides the gradients of such windows by the wrong number (torch 2.13).
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, AvgPooling)
        overlap = any(s < k for s, k in zip(layer.steps, layer.kernel_size, strict=True))
        if layer.ceil_mode and layer.count_include_pad:
            return None
        if cls.axes == 3 and ((overlap and site.device.type != "cpu") or not x or not x.numel):
            return None
        return cls(
            kernel_size=layer.kernel_size,
            stride=layer.steps,
            padding=layer.padding,
            ceil_mode=layer.ceil_mode,
            count_include_pad=layer.count_include_pad,
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.operator("avg_pool{}d")(self.raised(x), *self._arguments())
        return self.lowered(y)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        g = self.raised(grad_y)
        x = self.outline(specs["x"].shape, grad_y, order=g)
        grad: Tensor = self.operator("avg_pool{}d_backward")(g, x, *self._arguments(), None)
        return self.lowered(grad)

    def _arguments(self) -> tuple[Any, ...]:
        return (
            self.sizes(self.kernel_size, 1),
            self.sizes(self.stride, 1),
            self.sizes(self.padding, 0),
            self.ceil_mode,
            self.count_include_pad,
        )


class AtenAvgPool1d(_AvgPool):
    """avg_pool1d by aten's operators."""

    replaces = "avg_pool1d(x)"
    axes: ClassVar[int] = 1


class AtenAvgPool2d(_AvgPool):
    """avg_pool2d by aten's operators."""

    replaces = "avg_pool2d(x)"
    axes: ClassVar[int] = 2


class AtenAvgPool3d(_AvgPool):
    """avg_pool3d by aten's operators; on CUDA it does not match windows that overlap."""

    replaces = "avg_pool3d(x)"
    axes: ClassVar[int] = 3


class _Adaptive(_Operators):
    """Adaptive pooling by aten's operators, on a CPU, where the order of its sums is always the same."""

    output_size: tuple[int, ...]

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, AdaptivePooling)
        if x is None or not x.numel or site.device.type != "cpu":
            return None
        sizes = zip(x.shape[2:], layer.output_size, strict=True)
        return cls(output_size=tuple(m or n for n, m in sizes))


class _AdaptiveAvgPool(_Adaptive):
    def forward(self, x: Tensor) -> Tensor:
        size = self.sizes(self.output_size, 1)
        y: Tensor = self.operator("_adaptive_avg_pool{}d")(self.raised(x), size)
        return self.lowered(y)

    def backward(self, grad_y: Tensor, specs: Specs) -> Tensor:
        g = self.raised(grad_y)
        x = self.outline(specs["x"].shape, grad_y, order=g)
        grad: Tensor = self.operator("_adaptive_avg_pool{}d_backward")(g, x)
        return self.lowered(grad)


class AtenAdaptiveAvgPool1d(_AdaptiveAvgPool):
    """adaptive_avg_pool1d by aten's operators, on a CPU."""

    replaces = "adaptive_avg_pool1d(x)"
    axes: ClassVar[int] = 1


class AtenAdaptiveAvgPool2d(_AdaptiveAvgPool):
    """adaptive_avg_pool2d by aten's operators, on a CPU."""

    replaces = "adaptive_avg_pool2d(x)"
    axes: ClassVar[int] = 2


class AtenAdaptiveAvgPool3d(_AdaptiveAvgPool):
    """adaptive_avg_pool3d by aten's operators, on a CPU."""

    replaces = "adaptive_avg_pool3d(x)"
    axes: ClassVar[int] = 3


class _AdaptiveMaxPool(_Adaptive):
    saves: ClassVar[tuple[str, ...]] = ("indices",)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = self.sizes(self.output_size, 1)
        y, indices = self.operator("adaptive_max_pool{}d")(self.raised(x), size)
        return self.lowered(y), indices

    def backward(self, grad_y: Tensor, indices: Tensor, specs: Specs) -> Tensor:
        x = self.outline(specs["x"].shape, grad_y, order=indices)
        grad: Tensor = self.operator("adaptive_max_pool{}d_backward")(
            self.raised(grad_y), x, indices
        )
        return self.lowered(grad)


class AtenAdaptiveMaxPool1d(_AdaptiveMaxPool):
    """adaptive_max_pool1d by aten's operators, on a CPU."""

    replaces = "adaptive_max_pool1d(x)"
    axes: ClassVar[int] = 1


class AtenAdaptiveMaxPool2d(_AdaptiveMaxPool):
    """adaptive_max_pool2d by aten's operators, on a CPU."""

    replaces = "adaptive_max_pool2d(x)"
    axes: ClassVar[int] = 2


class AtenAdaptiveMaxPool3d(_AdaptiveMaxPool):
    """adaptive_max_pool3d by aten's operators, on a CPU."""

    replaces = "adaptive_max_pool3d(x)"
    axes: ClassVar[int] = 3


KERNELS: dict[str, type[Layer]] = {
    "aten/max_pool1d": AtenMaxPool1d,
    "aten/max_pool2d": AtenMaxPool2d,
    "aten/max_pool3d": AtenMaxPool3d,
    "aten/avg_pool1d": AtenAvgPool1d,
    "aten/avg_pool2d": AtenAvgPool2d,
    "aten/avg_pool3d": AtenAvgPool3d,
    "aten/adaptive_avg_pool1d": AtenAdaptiveAvgPool1d,
    "aten/adaptive_avg_pool2d": AtenAdaptiveAvgPool2d,
    "aten/adaptive_avg_pool3d": AtenAdaptiveAvgPool3d,
    "aten/adaptive_max_pool1d": AtenAdaptiveMaxPool1d,
    "aten/adaptive_max_pool2d": AtenAdaptiveMaxPool2d,
    "aten/adaptive_max_pool3d": AtenAdaptiveMaxPool3d,
}

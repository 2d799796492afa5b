"""The modules of pooling, with the arguments of torch's, in 1-D to 3-D."""

from __future__ import annotations

from typing import Any, ClassVar

from graphnet.nn.module import Module, layer_named

Size = int | tuple[int, ...]
"""One number for all spatial axes, or one for each."""


class _MaxPool(Module):
    _name: ClassVar[str]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        **options: Any,
    ) -> None:
        layer = layer_named(
            self._name,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )
        super().__init__(layer, **options)


class MaxPool1d(_MaxPool):
    """The largest value of each window, with the fields of torch.nn.MaxPool1d by name.

    >>> MaxPool1d(2)(torch.ones(1, 3, 6)).shape
    torch.Size([1, 3, 3])
    """

    _name = "max_pool1d"


class MaxPool2d(_MaxPool):
    """The largest value of each window, with the fields of torch.nn.MaxPool2d by name.

    >>> MaxPool2d(2)(torch.ones(1, 3, 6, 6)).shape
    torch.Size([1, 3, 3, 3])
    """

    _name = "max_pool2d"


class MaxPool3d(_MaxPool):
    """The largest value of each window, with the fields of torch.nn.MaxPool3d by name.

    >>> MaxPool3d(2)(torch.ones(1, 3, 6, 6, 6)).shape
    torch.Size([1, 3, 3, 3, 3])
    """

    _name = "max_pool3d"


class _AvgPool(Module):
    _name: ClassVar[str]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        **options: Any,
    ) -> None:
        layer = layer_named(
            self._name,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )
        super().__init__(layer, **options)


class AvgPool1d(_AvgPool):
    """The mean of each window, with the arguments of torch.nn.AvgPool1d.

    >>> AvgPool1d(2)(torch.ones(1, 3, 6)).shape
    torch.Size([1, 3, 3])
    """

    _name = "avg_pool1d"


class AvgPool2d(_AvgPool):
    """The mean of each window, with the arguments of torch.nn.AvgPool2d.

    >>> AvgPool2d(2)(torch.ones(1, 3, 6, 6)).shape
    torch.Size([1, 3, 3, 3])
    """

    _name = "avg_pool2d"


class AvgPool3d(_AvgPool):
    """The mean of each window, with the arguments of torch.nn.AvgPool3d.

    >>> AvgPool3d(2)(torch.ones(1, 3, 6, 6, 6)).shape
    torch.Size([1, 3, 3, 3, 3])
    """

    _name = "avg_pool3d"


class _AdaptivePool(Module):
    _name: ClassVar[str]

    def __init__(self, output_size: int | tuple[int | None, ...], **options: Any) -> None:
        super().__init__(layer_named(self._name, output_size=output_size), **options)


class AdaptiveAvgPool1d(_AdaptivePool):
    """The mean of each of output_size windows, with the arguments of torch.nn.AdaptiveAvgPool1d.

    >>> AdaptiveAvgPool1d(2)(torch.ones(1, 3, 6)).shape
    torch.Size([1, 3, 2])
    """

    _name = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_AdaptivePool):
    """The mean of each of output_size windows, with the arguments of torch.nn.AdaptiveAvgPool2d.

    >>> AdaptiveAvgPool2d(2)(torch.ones(1, 3, 6, 6)).shape
    torch.Size([1, 3, 2, 2])
    """

    _name = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_AdaptivePool):
    """The mean of each of output_size windows, with the arguments of torch.nn.AdaptiveAvgPool3d.

    >>> AdaptiveAvgPool3d(2)(torch.ones(1, 3, 6, 6, 6)).shape
    torch.Size([1, 3, 2, 2, 2])
    """

    _name = "adaptive_avg_pool3d"


class AdaptiveMaxPool1d(_AdaptivePool):
    """The largest value of each of output_size windows, with the arguments of torch.nn.AdaptiveMaxPool1d.

    >>> AdaptiveMaxPool1d(2)(torch.ones(1, 3, 6)).shape
    torch.Size([1, 3, 2])
    """

    _name = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_AdaptivePool):
    """The largest value of each of output_size windows, with the arguments of torch.nn.AdaptiveMaxPool2d.

    >>> AdaptiveMaxPool2d(2)(torch.ones(1, 3, 6, 6)).shape
    torch.Size([1, 3, 2, 2])
    """

    _name = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_AdaptivePool):
    """The largest value of each of output_size windows, with the arguments of torch.nn.AdaptiveMaxPool3d.

    >>> AdaptiveMaxPool3d(2)(torch.ones(1, 3, 6, 6, 6)).shape
    torch.Size([1, 3, 2, 2, 2])
    """

    _name = "adaptive_max_pool3d"


class GlobalAvgPool(Module):
    """The mean of each channel over its pixels, for any number of spatial axes.

    >>> GlobalAvgPool()(torch.ones(1, 3, 6, 6)).shape
    torch.Size([1, 3, 1, 1])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(layer_named("global_avg_pool"), **options)

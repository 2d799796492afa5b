"""ATen kernels: torch's own convolutions (oneDNN, cuDNN), and mse with its gradient as one operator each.

They call the operators that torch.nn.functional calls, and compute gradients by the operators that autograd
would call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.layers.borders import PaddingMode, add_border, fold_border
from graphnet.builtin.layers.conv import Correlation
from graphnet.builtin.layers.transpose_conv import TransposeConvolution
from graphnet.sdk import Kernel, Layer, Layout, Site, Spec

_aten = torch.ops.aten
_CHANNELS_LAST = {"x": torch.channels_last, "weight": torch.channels_last}


class _AtenConvolution(Kernel):
    """aten.convolution and aten.convolution_backward, for all convolutions, over any number of axes."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    transposed: ClassVar[bool]

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y: Tensor = _aten.convolution.default(x, weight, bias, *self._arguments())
        return y

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        mask = ["x" in wanted, "weight" in wanted, "bias" in wanted]
        grads: tuple[Tensor | None, Tensor | None, Tensor | None] = (
            _aten.convolution_backward.default(
                grad_y, dense(x), dense(weight), [grad_y.shape[1]], *self._arguments(), mask
            )
        )
        return grads

    def _arguments(self) -> tuple[Any, ...]:
        return (
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        )


def dense(x: Tensor) -> Tensor:
    """Return x in contiguous memory, or an image in N H W C; a copy if it is in neither order.

    An axis of size 1 may have any stride. With one that fits neither order, torch 2.13 mixes the two up
    on the CPU: it permutes the weight's gradient with groups, or refuses to compute it without.
    """
    if x.is_contiguous():
        return x
    if x.ndim != 4:
        return x.contiguous()
    _, c, h, w = x.shape
    return x if x.stride() == (h * w * c, 1, w * c, c) else x.contiguous()


def _crashes(layer: Correlation | TransposeConvolution, padding: tuple[int, ...]) -> bool:
    """Whether a dilated kernel has a position that lies in the padding completely.

    oneDNN 3.12 reads outside the image there and may end the process: in channels_last, in the forward
    of a convolution with a bias, and for bfloat16 in the backward of a transposed one.
    """
    axes = zip(padding, layer.dilation, layer.kernel_size, strict=True)
    return any(p > d * (k - 1) and d > 1 for p, d, k in axes)


def _garbles(layer: Correlation | TransposeConvolution, x: Spec, output: tuple[int, ...]) -> bool:
    """Whether oneDNN 3.12 may return a weight gradient in bfloat16 that is not one, up to 1e36.

    This was seen with dilation, and on images of a few pixels, but in no other of 24,000 configurations.
    """
    small = min(*x.shape[2:], *output) < _BFLOAT16_PIXELS
    return x.dtype == torch.bfloat16 and (set(layer.dilation) != {1} or small)


_BFLOAT16_PIXELS = 6


class AtenCorrelation(_AtenConvolution):
    """A convolution by aten.convolution; it does not match uneven "same" padding or torch's errors.

    Padding that is not of zeros is added before, as a border of the image.
    """

    transposed: ClassVar[bool] = False
    border: tuple[int, ...] = ()
    mode: PaddingMode = "zeros"

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x, weight = site.layers, site.specs["x"], site.specs["weight"]
        assert isinstance(layer, Correlation)
        assert x is not None
        assert weight is not None
        pads, output = layer.pads(), layer.places(x.shape)
        border: tuple[int, ...] = ()
        if not layer.pads_zeros:
            pads, border = (0,) * len(pads), pads
        if pads[::2] != pads[1::2]:
            return None
        padding = pads[::-2]
        wrong = _crashes(layer, padding) or _garbles(layer, x, output)
        if site.device.type == "cpu" and wrong:
            return None
        return cls(
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilation,
            output_padding=(0,) * layer.axes,
            groups=x.shape[1] // weight.shape[1],
            border=border,
            mode=layer.padding_mode if border else "zeros",
        )

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super().forward(self._bordered(x), weight, bias)

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        grad_x, *grads = super().backward(grad_y, self._bordered(x), weight, wanted)
        if grad_x is not None and self.border:
            grad_x = fold_border(grad_x, self.border, self.mode)
        return grad_x, grads[0], grads[1]

    def _bordered(self, x: Tensor) -> Tensor:
        return add_border(x, self.border, self.mode) if self.border else x


class AtenConv1d(AtenCorrelation):
    """conv1d by aten.convolution, as AtenConv2d."""

    replaces = "conv1d(x, weight, bias)"


class AtenConv2d(AtenCorrelation):
    """conv2d by aten.convolution; it does not match uneven "same" padding or torch's errors.

    Padding that is not of zeros is added before, as a border of the image.
    """

    replaces = "conv2d(x, weight, bias)"
    memory_formats: ClassVar[Mapping[str, torch.memory_format]] = _CHANNELS_LAST


class AtenConv3d(AtenCorrelation):
    """conv3d by aten.convolution, as AtenConv2d."""

    replaces = "conv3d(x, weight, bias)"


class AtenDepthwiseConv1d(AtenConv1d):
    """depthwise_conv1d by aten.convolution, as AtenConv2d."""

    replaces = "depthwise_conv1d(x, weight, bias)"


class AtenDepthwiseConv2d(AtenConv2d):
    """depthwise_conv2d by aten.convolution, as AtenConv2d."""

    replaces = "depthwise_conv2d(x, weight, bias)"


class AtenDepthwiseConv3d(AtenConv3d):
    """depthwise_conv3d by aten.convolution, as AtenConv2d."""

    replaces = "depthwise_conv3d(x, weight, bias)"


class AtenTransposeConvolution(_AtenConvolution):
    """A transposed convolution by aten.convolution; it does not match what torch computes wrongly."""

    transposed: ClassVar[bool] = True

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, TransposeConvolution)
        assert x is not None
        wrong = _crashes(layer, layer.padding) or _garbles(layer, x, layer.full(x.shape))
        if site.device.type == "cpu" and wrong:
            return None
        return cls(
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            output_padding=layer.output_padding,
            groups=layer.groups,
        )


class AtenTransposeConv1d(AtenTransposeConvolution):
    """transpose_conv1d by aten.convolution, as AtenTransposeConv2d."""

    replaces = "transpose_conv1d(x, weight, bias)"


class AtenTransposeConv2d(AtenTransposeConvolution):
    """transpose_conv2d by aten.convolution; it does not match what torch computes wrongly."""

    replaces = "transpose_conv2d(x, weight, bias)"
    memory_formats: ClassVar[Mapping[str, torch.memory_format]] = _CHANNELS_LAST


class AtenTransposeConv3d(AtenTransposeConvolution):
    """transpose_conv3d by aten.convolution, as AtenTransposeConv2d."""

    replaces = "transpose_conv3d(x, weight, bias)"


class AtenMSE(Kernel):
    """mse without a saved difference; it does not match empty batches."""

    replaces = "mse(prediction, target)"
    outputs: ClassVar[tuple[str, ...]] = ("loss",)
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    overwrites: ClassVar[Mapping[str, str]] = {"grad_prediction": "prediction"}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        prediction = site.specs["prediction"]
        return cls() if prediction is None or prediction.numel else None

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"prediction": (), "target": ()}

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = _aten.mse_loss.default(prediction, target)
        return loss.clone()  # aten's own has the storage of all the squares behind its one number

    def backward(
        self, grad_loss: Tensor, prediction: Tensor, target: Tensor
    ) -> tuple[Tensor, None]:
        grad: Tensor = _aten.mse_loss_backward.default(grad_loss, prediction, target, 1)
        return grad, None

    def backward_(
        self, grad_loss: Tensor, prediction: Tensor, target: Tensor
    ) -> tuple[Tensor, None]:
        grad: Tensor = _aten.mse_loss_backward.grad_input(
            grad_loss, prediction, target, 1, grad_input=prediction
        )
        return grad, None


KERNELS: dict[str, type[Layer]] = {
    "aten/conv1d": AtenConv1d,
    "aten/conv2d": AtenConv2d,
    "aten/conv3d": AtenConv3d,
    "aten/depthwise_conv1d": AtenDepthwiseConv1d,
    "aten/depthwise_conv2d": AtenDepthwiseConv2d,
    "aten/depthwise_conv3d": AtenDepthwiseConv3d,
    "aten/transpose_conv1d": AtenTransposeConv1d,
    "aten/transpose_conv2d": AtenTransposeConv2d,
    "aten/transpose_conv3d": AtenTransposeConv3d,
    "aten/mse": AtenMSE,
}

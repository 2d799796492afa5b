"""Depthwise convolution: each channel has its own kernel."""

from __future__ import annotations

from graphnet.builtin.layers.conv import Correlation
from graphnet.sdk import ConvInit, ParameterSpec, Specs, weight_and_bias


class DepthwiseConvolution(Correlation):
    """Convolves each channel with its own kernel, over any number of axes.

    y[n, c] = weight[c, 0] * x[n, c] + bias[c], with * the cross-correlation of a convolution: its equations 1
    to 4, for G = C groups of one channel (Howard et al. 2017, MobileNets, eq. 3).

    x: (N, C, *S); weight: (C, 1, *kernel_size); bias: (C,), none if the field `bias` is false; y: (N, C, *S')
    with S' and the fields as for a convolution. Any floating dtype. Backward keeps x. Parameters start as
    torch's: U(-b, b), b = 1 / sqrt(product of kernel_size); weight_init as for a convolution.

    Raises:
        GraphError: x has another number of axes, the kernel is larger than the padded input, or the image
            is too small for its padding_mode.
        DescriptionError: padding is "same" and the stride is not 1.
    """

    bias: bool = True
    weight_init: ConvInit | None = None

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        x = specs["x"]
        self.sizes(x)
        bias = (x.shape[1],) if self.bias else None
        weight = (x.shape[1], 1, *self.kernel_size)
        return weight_and_bias(weight, bias, init=self.weight_init, groups=x.shape[1])


class DepthwiseConv1d(DepthwiseConvolution, axes=1):
    """Convolves each channel with its own kernel: conv1d with one group for each channel.

    x: (N, C, L); weight: (C, 1, k). See `DepthwiseConvolution`.
    """


class DepthwiseConv2d(DepthwiseConvolution, axes=2):
    """Convolves each channel with its own kernel: conv2d with one group for each channel.

    x: (N, C, H, W); weight: (C, 1, kh, kw). See `DepthwiseConvolution`.

    >>> DepthwiseConv2d(kernel_size=3, padding=1).kernel_size
    (3, 3)
    """


class DepthwiseConv3d(DepthwiseConvolution, axes=3):
    """Convolves each channel with its own kernel: conv3d with one group for each channel.

    x: (N, C, D, H, W); weight: (C, 1, kd, kh, kw). See `DepthwiseConvolution`.
    """

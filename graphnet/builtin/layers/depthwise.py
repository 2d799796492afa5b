"""Depthwise convolution: each channel has its own kernel."""

from __future__ import annotations

from graphnet.builtin.layers.conv import Correlation
from graphnet.errors import GraphError
from graphnet.sdk import ConvInit, ParameterSpec, Specs, weight_and_bias


class DepthwiseConv2d(Correlation):
    """Convolves each channel with its own kernel: conv2d with one group for each channel.

    y[n, c] = weight[c, 0] * x[n, c] + bias[c], with * the cross-correlation of conv2d: its equations 1 to 4,
    for G = C groups of one channel (Howard et al. 2017, MobileNets, eq. 3).

    x: (N, C, H, W); weight: (C, 1, kh, kw); bias: (C,), none if the field `bias` is false; y: (N, C, H', W')
    with H' and the fields as for conv2d. Any floating dtype. Backward keeps x. Parameters start as torch's:
    U(-b, b), b = 1 / sqrt(kh kw); weight_init as for conv2d.

    Raises:
        GraphError: x does not have the axes N C H W, or the kernel is larger than the padded input.

    >>> DepthwiseConv2d(kernel_size=3, padding=1).kernel_size
    (3, 3)
    """

    bias: bool = True
    weight_init: ConvInit | None = None

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        x = specs["x"]
        if len(x.shape) != 4:
            raise GraphError(f"expected an input N x C x H x W, got {x}")
        bias = (x.shape[1],) if self.bias else None
        weight = (x.shape[1], 1, *self.kernel_size)
        return weight_and_bias(weight, bias, init=self.weight_init, groups=x.shape[1])

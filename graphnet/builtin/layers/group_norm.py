"""Group norm: normalization over groups of channels of each image, forward and backward."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.builtin.layers.channels import per_channel
from graphnet.builtin.layers.norm import (
    affine_gradients,
    checked_channels,
    input_gradient,
    scale_and_shift,
)
from graphnet.errors import ContractError, GraphError
from graphnet.sdk import Layer, ParameterSpec, Specs


class GroupedNorm(Layer):
    """The base of group norm and instance norm: normalization over groups of channels of each image."""

    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    eps: NonNegativeFloat

    def count(self, channels: int) -> int:
        """The number of groups of an image with so many channels."""
        raise ContractError(f"{type(self).__name__} defines no count(channels)")

    def groups(self, x: Tensor) -> Tensor:
        """Reshape (N, C, *S) to (N, G, m). No size is -1, which torch refuses for an empty batch."""
        groups = self.count(x.shape[1])
        return x.reshape(x.shape[0], groups, math.prod(x.shape[1:]) // groups)

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        grouped = self.groups(x)
        mean = grouped.mean(2)
        centered = grouped - mean[..., None]
        inverse_std = (centered.square().mean(2) + self.eps).rsqrt()
        y = (centered * inverse_std[..., None]).reshape(x.shape)
        if weight is not None and bias is not None:
            y = y * per_channel(weight, x) + per_channel(bias, x)
        return y, mean, inverse_std

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        r = inverse_std[..., None]
        z = (self.groups(x) - mean[..., None]) * r
        grad_x = None
        if "x" in wanted:
            h = self.groups(grad_y if weight is None else grad_y * per_channel(weight, x))
            grad_x = input_gradient(h, z, z, r, 2, subtract_mean=True).reshape(x.shape)
        return grad_x, *affine_gradients(grad_y, z.reshape(x.shape), wanted)


class GroupNorm(GroupedNorm):
    """Normalizes each group of channels of an image to mean 0 and variance 1, as torch.nn.GroupNorm.

    Wu & He 2018, eqs. 1, 2, 6 and 7, over the m values of a group of an image, C/G for each pixel:
        mean = sum x / m;  var = sum (x - mean)^2 / m;  z = (x - mean) / sqrt(var + eps);
        y = weight z + bias, channel by channel.
    With g the gradient of y, and h = weight g that of z:
        dweight = sum g z;  dbias = sum g, over batch and pixels;
        dx = (h - mean of h - z mean of (h z)) / sqrt(var + eps), means over the group.

    x, y: (N, C, *S) with any number of axes, float; weight, bias: (C,), none if affine is false; G =
    num_groups. Backward keeps x, and the mean and 1 / sqrt(var + eps) of each group, (N, G).

    Raises:
        GraphError: x has no axes N and C, its channels are not the stated num_channels, or
            num_groups does not divide them.

    >>> GroupNorm(num_groups=8).eps
    1e-05
    """

    num_groups: PositiveInt
    num_channels: PositiveInt | None = None
    eps: NonNegativeFloat = 1e-5
    affine: bool = True

    def count(self, channels: int) -> int:
        return self.num_groups

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = checked_channels(specs["x"], self.num_channels, field="num_channels")
        if channels % self.num_groups:
            raise GraphError(
                f"num_groups ({self.num_groups}) must divide the input channels ({channels})"
            )
        return scale_and_shift(channels) if self.affine else {"weight": None, "bias": None}


class InstanceNorm(GroupedNorm):
    """Normalizes each channel of an image to mean 0 and variance 1, as torch.nn.InstanceNorm1d, 2d and 3d.

    Ulyanov et al. 2016: group norm with a group for each channel, whose equations hold with m the pixels of a
    channel. There are no running statistics, so inference is the same.

    x, y: (N, C, *S) with at least one spatial axis, float; weight, bias: (C,), none if affine is false, as by
    default. Backward keeps x, and the mean and 1 / sqrt(var + eps) of each channel, (N, C).

    Raises:
        GraphError: x has no spatial axes, or its channels are not the stated num_features.

    >>> InstanceNorm(num_features=8).affine
    False
    """

    num_features: PositiveInt | None = None
    eps: NonNegativeFloat = 1e-5
    affine: bool = False

    def count(self, channels: int) -> int:
        return channels

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        x = specs["x"]
        if len(x.shape) < 3:
            raise GraphError(f"expected an input N x C x ... with spatial axes, got {x}")
        channels = checked_channels(x, self.num_features, field="num_features")
        return scale_and_shift(channels) if self.affine else {"weight": None, "bias": None}

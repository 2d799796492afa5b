"""Group norm: normalization over groups of channels of each image, forward and backward."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.builtin.layers.norm import (
    affine_gradients,
    checked_channels,
    input_gradient,
    per_channel,
)
from graphnet.errors import GraphError
from graphnet.sdk import Constant, Layer, ParameterSpec, Specs


class GroupNorm(Layer):
    """Normalizes each group of channels of an image to mean 0 and variance 1, as torch.nn.GroupNorm.

    Wu & He 2018, eqs. 1, 2, 6 and 7, over the m = C/G H W values of a group of an image:
        mean = sum x / m;  var = sum (x - mean)^2 / m;  z = (x - mean) / sqrt(var + eps);
        y = weight z + bias, channel by channel.
    With g the gradient of y, and h = weight g that of z:
        dweight = sum g z;  dbias = sum g, over batch and pixels;
        dx = (h - mean of h - z mean of (h z)) / sqrt(var + eps), means over the group.

    x, y: (N, C, H, W), float; weight, bias: (C,), none if affine is false; G = num_groups. Backward keeps x,
    and the mean and 1 / sqrt(var + eps) of each group, (N, G).

    Raises:
        GraphError: x does not have the axes N C H W, its channels are not the stated num_channels, or
            num_groups does not divide them.

    >>> GroupNorm(num_groups=8).eps
    1e-05
    """

    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    num_groups: PositiveInt
    num_channels: PositiveInt | None = None
    eps: NonNegativeFloat = 1e-5
    affine: bool = True

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = checked_channels(specs["x"], self.num_channels, field="num_channels")
        if channels % self.num_groups:
            raise GraphError(
                f"num_groups ({self.num_groups}) must divide the input channels ({channels})"
            )
        return {
            "weight": ParameterSpec((channels,), Constant(1.0)) if self.affine else None,
            "bias": ParameterSpec((channels,), Constant(0.0)) if self.affine else None,
        }

    def groups(self, x: Tensor) -> Tensor:
        """Reshape (N, C, H, W) to (N, G, C/G H W). No size is -1, which torch refuses for an empty batch."""
        return x.reshape(x.shape[0], self.num_groups, math.prod(x.shape[1:]) // self.num_groups)

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        grouped = self.groups(x)
        mean = grouped.mean(2)
        centered = grouped - mean[..., None]
        inverse_std = (centered.square().mean(2) + self.eps).rsqrt()
        y = (centered * inverse_std[..., None]).reshape(x.shape)
        if weight is not None and bias is not None:
            y = y * per_channel(weight) + per_channel(bias)
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
            h = self.groups(grad_y if weight is None else grad_y * per_channel(weight))
            grad_x = input_gradient(h, z, z, r, 2, subtract_mean=True).reshape(x.shape)
        return grad_x, *affine_gradients(grad_y, z.reshape(x.shape), wanted)

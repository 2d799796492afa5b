"""Layer norm of images: normalization over the channels of each pixel, over one, two or three axes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from graphnet.builtin.layers.channels import per_channel
from graphnet.builtin.layers.norm import affine_gradients, checked_channels, input_gradient
from graphnet.sdk import Constant, Layer, ParameterSpec, Specs


class PixelNorm(Layer):
    """Normalizes the channels of each pixel to mean 0 and variance 1, over any number of axes.

    Ba et al. 2016, eq. 3, with the channels as the hidden units: torch.nn.LayerNorm over C, as in ConvNeXt
    and NAFNet.
        mean = sum x / C;  var = sum (x - mean)^2 / C;  r = 1 / sqrt(var + eps);
        z = (x - mean) r;  y = weight z + bias.
    Without subtract_mean  z = x r, and without bias  y = weight z; both off is the "bias-free" norm of
    Restormer (Zamir et al. 2022), which has eps 1e-5.
    With g the gradient of y, and h = weight g that of z:
        dweight = sum g z;  dbias = sum g, over batch and pixels;
        dx = r (h - mean of h - (x - mean) r mean of (h z)), where "mean of h" is 0 without subtract_mean.

    x, y: (N, C, *S), float; weight, bias: (C,), none if affine is false. Backward keeps x, and the mean and
    r of each pixel, (N, 1, *S).

    Raises:
        GraphError: x has another number of axes, or its channels are not the stated num_channels.
    """

    ranks: ClassVar[tuple[int, ...]]
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    num_channels: PositiveInt | None = None
    eps: NonNegativeFloat = 1e-6
    affine: bool = True
    bias: bool = True
    subtract_mean: bool = True

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        shape = (
            checked_channels(specs["x"], self.num_channels, field="num_channels", ranks=self.ranks),
        )
        return {
            "weight": ParameterSpec(shape, Constant(1.0)) if self.affine else None,
            "bias": ParameterSpec(shape, Constant(0.0)) if self.affine and self.bias else None,
        }

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(1, keepdim=True)
        centered = x - mean
        inverse_std = (centered.square().mean(1, keepdim=True) + self.eps).rsqrt()
        y = (centered if self.subtract_mean else x) * inverse_std
        y = y if weight is None else y * per_channel(weight, x)
        return y if bias is None else y + per_channel(bias, x), mean, inverse_std

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        centered = (x - mean) * inverse_std
        z = centered if self.subtract_mean else x * inverse_std
        grad_x = None
        if "x" in wanted:
            h = grad_y if weight is None else grad_y * per_channel(weight, x)
            grad_x = input_gradient(
                h, z, centered, inverse_std, 1, subtract_mean=self.subtract_mean
            )
        return grad_x, *affine_gradients(grad_y, z, wanted)

    def window(self, rows: range, axis: int) -> range | None:
        return rows


class LayerNorm1d(PixelNorm):
    """Normalizes the channels of each position to mean 0 and variance 1: layer norm of N C L signals.

    See `PixelNorm` for its equations, fields and errors.
    """

    ranks: ClassVar[tuple[int, ...]] = (3,)


class LayerNorm2d(PixelNorm):
    """Normalizes the channels of each pixel to mean 0 and variance 1: layer norm of N C H W images.

    See `PixelNorm` for its equations, fields and errors.

    >>> LayerNorm2d(bias=False, subtract_mean=False).eps
    1e-06
    """

    ranks: ClassVar[tuple[int, ...]] = (4,)


class LayerNorm3d(PixelNorm):
    """Normalizes the channels of each pixel to mean 0 and variance 1: layer norm of N C D H W volumes.

    See `PixelNorm` for its equations, fields and errors.
    """

    ranks: ClassVar[tuple[int, ...]] = (5,)

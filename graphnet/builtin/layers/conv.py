"""Convolution over one, two or three axes, computed as one matrix product, forward and backward.

Axes: N batch, C input channels, O output channels, G groups, S the spatial axes (L; H, W; or D, H, W), K =
the product of the kernel's sizes, P the number of positions of the kernel. `unfold` (im2col) copies the
patch under each position into a column of C*K numbers; `fold`, its transpose, adds the columns to an image.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import PositiveInt
from torch import Tensor

from graphnet.builtin.layers.borders import (
    PaddingMode,
    add_border,
    border_rows,
    check_border,
    fold_border,
)
from graphnet.builtin.layers.windows import Windows
from graphnet.errors import DescriptionError, GraphError, Problem
from graphnet.sdk import (
    ConvInit,
    Layer,
    NonNegativeSizes,
    ParameterSpec,
    PositiveSizes,
    Precision,
    Spatial,
    Spec,
    Specs,
    weight_and_bias,
)


def grouped(x: Tensor, groups: int) -> Tensor:
    """Reshape (N, C, ...) to (N, G, C/G, P). No size is -1, which torch refuses for an empty batch."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, math.prod(x.shape[2:]))


def kernels_of(weight: Tensor, groups: int) -> Tensor:
    """Reshape a weight (A, B, *kernel) to one matrix for each group, (G, A/G, B * K)."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Add a bias (O,), or none, to the channels of y (N, O, *S)."""
    return y if bias is None else y + bias.view(-1, *(1,) * (y.ndim - 2))


def bias_gradient(grad_y: Tensor) -> Tensor:
    """The sum of grad_y (N, O, *S) over batch and positions, (O,)."""
    return grad_y.sum((0, *range(2, grad_y.ndim)))


class Channels(Spatial):
    """The fields for the channels of a convolution, and their checks."""

    precision: ClassVar[Precision] = "compute"
    in_channels: PositiveInt | None = None
    out_channels: PositiveInt

    def channels(self, x: Spec, groups: int) -> int:
        """Return the number of input channels. Raises GraphError unless the fields allow it."""
        self.sizes(x)
        channels = x.shape[1]
        if self.in_channels not in (None, channels):
            raise GraphError(
                f"expected {self.in_channels} input channels, got {channels}. "
                f"Set in_channels: {channels}, or leave it out."
            )
        if channels % groups or self.out_channels % groups:
            raise GraphError(
                f"groups ({groups}) must divide the input channels ({channels}) and the output "
                f"channels ({self.out_channels})"
            )
        return channels


class Correlation(Spatial):
    """A cross-correlation over any number of axes; subclasses declare its parameters.

    x: (N, C, *S); weight: (O, C/G, *kernel), whose shape determines the number G of groups; bias: (O,) or
    None. Backward keeps x.
    """

    precision: ClassVar[Precision] = "compute"
    kernel_size: PositiveSizes
    stride: PositiveSizes = (1,)
    padding: NonNegativeSizes | Literal["same", "valid"] = (0,)
    dilation: PositiveSizes = (1,)
    padding_mode: PaddingMode = "zeros"

    def __post_init__(self) -> None:
        if self.padding == "same" and set(self.stride) != {1}:
            raise DescriptionError([Problem("'same' needs stride 1", "padding")])

    @property
    def windows(self) -> Windows:
        """The positions of the kernel in the padded input."""
        return Windows(self.kernel_size, self.stride, self.dilation)

    @property
    def pads_zeros(self) -> bool:
        """Whether the padding is zeros or absent. A kernel that pads with zeros only must check it."""
        return self.padding_mode == "zeros" or not any(self.pads())

    def pads(self) -> tuple[int, ...]:
        """Return the padding as torch orders it: left, right, top, bottom, front, back."""
        if self.padding == "same":  # torch adds an odd pixel behind the image
            total = [span - 1 for span in reversed(self.windows.spans)]
            return tuple(side for t in total for side in (t // 2, t - t // 2))
        padding = (0,) * self.axes if isinstance(self.padding, str) else self.padding
        return tuple(side for pad in reversed(padding) for side in (pad, pad))

    def places(self, x: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output's sizes. Raises GraphError if the kernel does not fit."""
        sizes, pads = self.sizes(x), self.pads()
        check_border(sizes, pads, self.padding_mode)
        totals = [pads[i] + pads[i + 1] for i in reversed(range(0, len(pads), 2))]
        return self.windows.counts(tuple(n + t for n, t in zip(sizes, totals, strict=True)))

    def window(self, rows: range, axis: int) -> range | None:
        before, after = self.pads()[2 * (self.axes - 1 - axis) :][:2]
        return border_rows(self.windows.rows(rows, axis), before, after, self.padding_mode)

    def unfold(self, x: Tensor, groups: int) -> Tensor:
        """Copy the patches into columns, (N, G, C/G * K, P)."""
        padded = add_border(x, self.pads(), self.padding_mode)
        return grouped(self.windows.unfold(padded), groups)

    def fold(self, columns: Tensor, size: tuple[int, ...]) -> Tensor:
        """Add columns (N, G, C/G * K, P) to an image of shape `size`: the transpose of unfold."""
        pads = self.pads()
        totals = [pads[i] + pads[i + 1] for i in reversed(range(0, len(pads), 2))]
        padded = tuple(n + t for n, t in zip(size[2:], totals, strict=True))
        image = self.windows.fold(columns.flatten(1, 2), padded)
        return fold_border(image, pads, self.padding_mode)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        groups = x.shape[1] // weight.shape[1]
        size = (x.shape[0], weight.shape[0], *self.places(x.shape))
        y = (kernels_of(weight, groups) @ self.unfold(x, groups)).reshape(size)
        return add_bias(y, bias)

    def absorb(
        self, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        moved = shift if bias is None else shift + bias * scale
        return weight * scale.view(-1, *(1,) * (weight.ndim - 1)), moved

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        groups = x.shape[1] // weight.shape[1]
        g = grouped(grad_y, groups)
        grad_x = grad_weight = grad_bias = None
        if "x" in wanted:
            grad_x = self.fold(kernels_of(weight, groups).transpose(1, 2) @ g, tuple(x.shape))
        if "weight" in wanted:
            grad_weight = (g @ self.unfold(x, groups).transpose(2, 3)).sum(0).reshape(weight.shape)
        if "bias" in wanted:
            grad_bias = bias_gradient(grad_y)
        return grad_x, grad_weight, grad_bias


class Convolution(Correlation, Channels):
    """Convolution (cross-correlation) over any number of axes, computed as one matrix product.

    Eq. 1:  y = W unfold(x) + b,  with W as (O, C/G * K) and unfold(x) as (C/G * K, P) in each group.
    The gradients are convolutions too, and use the same columns. With g the gradient of y:
    eq. 2:  dW = g unfold(x)^T summed over the batch: x convolved with g (dilated by the stride);
    eq. 3:  dx = fold(W^T g): g (dilated by the stride) convolved with the rotated kernel;
    eq. 4:  db = the sum of g over batch and positions.

    x: (N, C, *S); weight: (O, C/G, *kernel_size); bias: (O,), none if the field `bias` is false;
    y: (N, O, *S') with S' = floor((S + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 on each axis. Any
    floating dtype. Backward keeps x. Parameters start as torch's: U(-b, b), b = 1 / sqrt(C/G * K). With
    weight_init, the weight starts as graphnet.sdk.initializers.Init of that name states, and the bias is 0.
    padding "same" keeps S (stride 1 only), "valid" is 0. padding_mode is what the padding shows: zeros, or
    the image that is reflected, replicated or repeated (circular), as the layers of padding do.

    Raises:
        GraphError: the axes or channels do not fit, the kernel is larger than the padded input, or the
            image is too small for its padding_mode.
        DescriptionError: padding is "same" and the stride is not 1.
    """

    groups: PositiveInt = 1
    bias: bool = True
    weight_init: ConvInit | None = None

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit, for kernels too: the last has other padding than zeros."""
        shape = (2, 4, *(6, 6, 6)[: cls.axes]) if cls.axes < 3 else (2, 2, 3, 4, 3)
        return [
            (cls(out_channels=2, kernel_size=(2,) * cls.axes, **fields), [shape])
            for fields in (
                {},
                {"bias": False},
                {"padding": (1,) * cls.axes, "padding_mode": "circular"},
            )
        ]

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        channels = self.channels(specs["x"], self.groups)
        weight = (self.out_channels, channels // self.groups, *self.kernel_size)
        bias = (self.out_channels,) if self.bias else None
        return weight_and_bias(weight, bias, init=self.weight_init, groups=self.groups)


class Conv1d(Convolution, axes=1):
    """One-dimensional convolution (cross-correlation), as torch.nn.Conv1d, computed as one matrix product.

    The equations, fields and errors are those of `Convolution`. x: (N, C, L); weight: (O, C/G, k).

    >>> Conv1d(out_channels=64, kernel_size=3, padding=1).kernel_size
    (3,)
    """


class Conv2d(Convolution, axes=2):
    """Two-dimensional convolution (cross-correlation), as torch.nn.Conv2d, computed as one matrix product.

    The equations, fields and errors are those of `Convolution`. x: (N, C, H, W); weight: (O, C/G, kh, kw).

    >>> Conv2d(out_channels=64, kernel_size=3, padding=1).kernel_size
    (3, 3)
    """


class Conv3d(Convolution, axes=3):
    """Three-dimensional convolution (cross-correlation), as torch.nn.Conv3d, computed as one matrix product.

    The equations, fields and errors are those of `Convolution`. x: (N, C, D, H, W);
    weight: (O, C/G, kd, kh, kw).

    >>> Conv3d(out_channels=64, kernel_size=3, padding=1).kernel_size
    (3, 3, 3)
    """

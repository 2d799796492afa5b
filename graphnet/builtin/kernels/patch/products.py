"""Patch kernels: convolutions whose stride is their kernel size, as one matrix product on a view.

Where the places of the kernel do not overlap and nothing is padded, unfold only moves pixels, and fold
moves them back. With the pixels of a patch next to each other in memory (see graphnet.sdk.blocks) neither has
anything left to do: conv2d's eq. 1 is y = X W^T + b on a view X of x, eq. 2 is dW = g^T X, eq. 3 dX = g W,
and the transposed convolution is the same with the roles of x and y exchanged. Weights are best stored in
channels_last: then their matrices are views too.

M is the number of patches, K = kernel height * width * C of the patch's channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.layers.conv import Conv2d
from graphnet.builtin.layers.transpose_conv import TransposeConv2d
from graphnet.errors import ContractError
from graphnet.sdk import Gradients, Kernel, Layout, Site, only


class Patch(Kernel):
    """Base of the kernels of patch layers, which are one matrix product.

    `product` and `gradients` take images in blocks and weights; `affine` and `affine_gradients` take the
    same as matrices.
    """

    memory_formats: ClassVar[dict[str, torch.memory_format]] = {"weight": torch.channels_last}
    kernel_size: tuple[int, int]

    def product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False
    ) -> Tensor:
        """y from x, both in blocks."""
        raise ContractError(f"{type(self).__name__} defines no product(x, weight, bias, relu)")

    def gradients(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        wanted: frozenset[str],
        mask: Tensor | None = None,
    ) -> Gradients:
        """The gradients of x, weight and bias from that of the product, where `mask` is above 0."""
        raise ContractError(
            f"{type(self).__name__} defines no gradients(g, x, weight, wanted, mask)"
        )

    def affine(self, x: Tensor, w: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
        """x (M, K) times w (K, N), plus bias (N,): (M, N)."""
        y = x @ w if bias is None else torch.addmm(bias, x, w)
        return y.relu_() if relu else y

    def affine_gradients(
        self,
        g: Tensor,
        x: Tensor,
        w: Tensor,
        wanted: frozenset[str],
        mask: Tensor | None,
        *,
        turned: bool,
    ) -> Gradients:
        """The gradients of x, w - as (N, K) if `turned` - and bias from g (M, N)."""
        if mask is not None:
            g = torch.ops.aten.threshold_backward.default(g, mask, 0)
        grad_w = None
        if "weight" in wanted:
            grad_w = g.t() @ x if turned else x.t() @ g
        return (
            g @ w.t() if "x" in wanted else None,
            grad_w,
            g.sum(0) if "bias" in wanted else None,
        )


class Fused(Patch):
    """Base of the patch kernels whose product, bias and ReLU are one operator, and whose gradients are one.

    The operators take the arguments of `affine_shape` and `affine_gradients_shape`.
    """

    product_operator: ClassVar[Any]
    gradients_operator: ClassVar[Any]

    def affine(self, x: Tensor, w: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
        y: Tensor = self.product_operator(x, w, bias, relu)
        return y

    def affine_gradients(
        self,
        g: Tensor,
        x: Tensor,
        w: Tensor,
        wanted: frozenset[str],
        mask: Tensor | None,
        *,
        turned: bool,
    ) -> Gradients:
        made = self.gradients_operator(g, x, w, mask, "x" in wanted, "bias" in wanted, turned)
        return only(wanted, made)


def is_patch(layer: Conv2d | TransposeConv2d) -> bool:
    """Whether the places of the kernel lie side by side: its stride is its size, and nothing is padded."""
    pads = (
        (*layer.padding, *layer.output_padding)
        if isinstance(layer, TransposeConv2d)
        else layer.pads()
    )
    apart = layer.stride == layer.kernel_size and layer.dilation == (1, 1)
    return apart and layer.groups == 1 and not any(pads)


def affine_shape(x: Tensor, w: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """What `affine` returns, without its numbers.

    >>> affine_shape(torch.empty(5, 3), torch.empty(3, 2), None, False).shape
    torch.Size([5, 2])
    """
    return x.new_empty((x.shape[0], w.shape[1]))


def affine_gradients_shape(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    mask: Tensor | None,
    wants_x: bool,
    wants_bias: bool,
    turned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Make tensors of the shapes of the gradients of x, w and bias; an unwanted gradient is empty.

    The gradients of w and bias are at least float32.

    >>> x, w, y = (torch.empty(shape) for shape in ((5, 3), (3, 2), (5, 2)))
    >>> [tuple(grad.shape) for grad in affine_gradients_shape(y, x, w, None, True, False, False)]
    [(5, 3), (3, 2), (0,)]
    """
    rows, columns = w.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    return (
        x.new_empty(x.shape if wants_x else (0,)),
        x.new_empty((columns, rows) if turned else (rows, columns), dtype=wide),
        x.new_empty((columns if wants_bias else 0,), dtype=wide),
    )


def affine_flops(x: Any, w: Any, *_: Any, **__: Any) -> int:
    """The floating-point operations of `affine`, from the shapes of its arguments.

    >>> affine_flops((5, 3), (3, 2))
    60
    """
    return 2 * int(x[0]) * int(w[0]) * int(w[1])


def affine_gradients_flops(
    grad: Any, x: Any, w: Any, mask: Any, wants_x: bool, *_: Any, **__: Any
) -> int:
    """The floating-point operations of the gradients of `affine`, from the shapes of the arguments.

    >>> affine_gradients_flops((5, 2), (5, 3), (3, 2), None, True)
    120
    """
    return affine_flops(x, w) * (2 if wants_x else 1)


def matrix_of(weight: Tensor) -> Tensor:
    """The weight (A, B, kh, kw) as (A, kh * kw * B).

    >>> matrix_of(torch.empty(8, 3, 2, 2)).shape
    torch.Size([8, 12])
    """
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def weight_of(matrix: Tensor, weight: Tensor) -> Tensor:
    """The transpose of `matrix_of`: a gradient in the weight's shape."""
    a, b, high, wide = weight.shape
    return matrix.view(a, high, wide, b).permute(0, 3, 1, 2)


class _Convolution(Patch):
    """conv2d with stride == kernel_size, no padding, dilation or groups."""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"x": (self.kernel_size,), "y": ()}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        layer, x = site.layers[-1], site.specs["x"]
        assert isinstance(layer, Conv2d)
        if not is_patch(layer) or x is None:
            return None
        high, wide = layer.kernel_size
        whole = x.shape[2] % high == 0 and x.shape[3] % wide == 0
        return cls(kernel_size=(high, wide)) if whole and x.numel else None

    def product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False
    ) -> Tensor:
        w = matrix_of(weight).t()
        y = self.affine(x.reshape(-1, w.shape[0]), w, bias, relu=relu)
        return y.view(*x.shape[:-3], -1)

    def gradients(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        wanted: frozenset[str],
        mask: Tensor | None = None,
    ) -> Gradients:
        w = matrix_of(weight).t()
        mask = None if mask is None else mask.reshape(-1, w.shape[1])
        g, pixels = g.reshape(-1, w.shape[1]), x.reshape(-1, w.shape[0])
        grad_x, grad_w, grad_bias = self.affine_gradients(g, pixels, w, wanted, mask, turned=True)
        return (
            None if grad_x is None else grad_x.view(x.shape),
            None if grad_w is None else weight_of(grad_w, weight),
            grad_bias,
        )


class _TransposeConvolution(Patch):
    """transpose_conv2d with stride == kernel_size, no padding, dilation or groups."""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return {"x": (), "y": (self.kernel_size,)}

    @classmethod
    def match(cls, site: Site) -> Self | None:
        layer, x = site.layers[-1], site.specs["x"]
        assert isinstance(layer, TransposeConv2d)
        fits = is_patch(layer) and x is not None and x.numel
        high, wide = layer.kernel_size
        return cls(kernel_size=(high, wide)) if fits else None

    def product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False
    ) -> Tensor:
        w = matrix_of(weight)
        high, wide = self.kernel_size
        bias = None if bias is None else bias.repeat(high * wide)
        y = self.affine(x.reshape(-1, w.shape[0]), w, bias, relu=relu)
        return y.view(*x.shape[:-1], high, wide, -1)

    def gradients(
        self,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        wanted: frozenset[str],
        mask: Tensor | None = None,
    ) -> Gradients:
        w = matrix_of(weight)
        mask = None if mask is None else mask.reshape(-1, w.shape[1])
        g, pixels = g.reshape(-1, w.shape[1]), x.reshape(-1, w.shape[0])
        grad_x, grad_w, grad_bias = self.affine_gradients(g, pixels, w, wanted, mask, turned=False)
        return (
            None if grad_x is None else grad_x.view(x.shape),
            None if grad_w is None else weight_of(grad_w, weight),
            None if grad_bias is None else grad_bias.view(-1, weight.shape[1]).sum(0),
        )


class _Plain(Patch):
    """The product alone."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.product(x, weight, bias)

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        return self.gradients(grad_y, x, weight, wanted)


class _ReLU(Patch):
    """The product and max(., 0): mask, data, weight and bias gradient are one step."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.product(x, weight, bias, relu=True)

    def backward(
        self, grad_y: Tensor, x: Tensor, y: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        return self.gradients(grad_y, x, weight, wanted, mask=y)


class PatchConv2d(_Plain, _Convolution):
    """conv2d as one matrix product, where stride == kernel_size and nothing is padded."""

    replaces = "conv2d(x, weight, bias)"


class PatchConv2dReLU(_ReLU, _Convolution):
    """conv2d and relu as one matrix product, where stride == kernel_size and nothing is padded."""

    replaces = "relu(conv2d(x, weight, bias))"


class PatchTransposeConv2d(_Plain, _TransposeConvolution):
    """transpose_conv2d as one matrix product, where stride == kernel_size and nothing is padded."""

    replaces = "transpose_conv2d(x, weight, bias)"


class PatchTransposeConv2dReLU(_ReLU, _TransposeConvolution):
    """transpose_conv2d and relu as one matrix product, as PatchTransposeConv2d."""

    replaces = "relu(transpose_conv2d(x, weight, bias))"


KERNELS: dict[str, type[Kernel]] = {
    "patch/conv2d_relu": PatchConv2dReLU,
    "patch/transpose_conv2d_relu": PatchTransposeConv2dReLU,
    "patch/conv2d": PatchConv2d,
    "patch/transpose_conv2d": PatchTransposeConv2d,
}

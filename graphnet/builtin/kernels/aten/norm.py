"""ATen kernels of normalization: torch's own operators, in one pass over the image."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.kernels.aten.convolution import dense
from graphnet.builtin.layers.group_norm import GroupedNorm
from graphnet.builtin.layers.layer_norm import PixelNorm
from graphnet.builtin.layers.norm import BatchNorm
from graphnet.sdk import Kernel, Layer, Site

_aten = torch.ops.aten


class _BatchNorm(Kernel):
    """Batch norm by aten's operators, forward and backward, over any number of axes.

    It matches neither channels of one value or none, nor running statistics in half precision.
    """

    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    updates: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    eps: float
    momentum: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x, running = site.layers, site.specs["x"], site.specs["running_mean"]
        assert isinstance(layer, BatchNorm)
        if x is None or running is None or x.numel <= x.shape[1] or running.dtype.itemsize < 4:
            return None
        return cls(eps=layer.eps, momentum=layer.momentum)

    def forward(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        results: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = (
            _aten._native_batch_norm_legit_functional.default(
                x, weight, bias, running_mean, running_var, True, self.momentum, self.eps
            )
        )
        return results

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        mask = ["x" in wanted, "weight" in wanted, "bias" in wanted]
        if weight is not None:  # with channels last, torch 2.13 reads other strides wrongly
            weight = weight.contiguous()
        grads: tuple[Tensor | None, Tensor | None, Tensor | None] = (
            _aten.native_batch_norm_backward.default(
                grad_y, x, weight, None, None, mean, inverse_std, True, self.eps, mask
            )
        )
        return grads

    def inference(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
    ) -> Tensor:
        y: Tensor = _aten._native_batch_norm_legit_functional.default(
            x, weight, bias, running_mean, running_var, False, self.momentum, self.eps
        )[0]
        return y


class AtenBatchNorm1d(_BatchNorm):
    """batch_norm1d by aten's batch norm and its backward, as AtenBatchNorm2d."""

    replaces = "batch_norm1d(x, weight, bias, running_mean, running_var)"


class AtenBatchNorm2d(_BatchNorm):
    """batch_norm2d by aten's batch norm, forward and backward.

    It matches neither channels of one value or none, nor running statistics in half precision.
    """

    replaces = "batch_norm2d(x, weight, bias, running_mean, running_var)"


class AtenBatchNorm3d(_BatchNorm):
    """batch_norm3d by aten's batch norm and its backward, as AtenBatchNorm2d."""

    replaces = "batch_norm3d(x, weight, bias, running_mean, running_var)"


def _in_order(x: Tensor) -> Tensor:
    """Return x as native_group_norm reads it: contiguous, or for an image on the CPU also in N H W C."""
    return dense(x) if x.device.type == "cpu" else x.contiguous()


class _GroupedNorm(Kernel):
    """Group norm and instance norm by aten's operator, over any number of axes, for non-empty images."""

    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    num_groups: int
    eps: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, GroupedNorm)
        if x is None or not x.numel:
            return None
        return cls(num_groups=layer.count(x.shape[1]), eps=layer.eps)

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, c, *sizes = x.shape
        weight, bias = (None if p is None else p.contiguous() for p in (weight, bias))
        results: tuple[Tensor, Tensor, Tensor] = _aten.native_group_norm.default(
            _in_order(x), weight, bias, n, c, math.prod(sizes), self.num_groups, self.eps
        )
        return results

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        n, c, *sizes = x.shape
        x = _in_order(x)
        order = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        mask = ["x" in wanted, "weight" in wanted, "bias" in wanted]
        grads: tuple[Tensor | None, Tensor | None, Tensor | None] = (
            _aten.native_group_norm_backward.default(
                grad_y.contiguous(memory_format=order),  # read in the order of x
                x,
                mean,
                inverse_std,
                None if weight is None else weight.contiguous(),
                n,
                c,
                math.prod(sizes),
                self.num_groups,
                mask,
            )
        )
        return grads


class AtenGroupNorm(_GroupedNorm):
    """group_norm by aten's operator; it does not match empty images."""

    replaces = "group_norm(x, weight, bias)"


class AtenInstanceNorm(_GroupedNorm):
    """instance_norm by aten's group norm; it does not match empty images."""

    replaces = "instance_norm(x, weight, bias)"


class _PixelNorm(Kernel):
    """Layer norm of pixels by aten's operator over the last axis: in channels_last without a copy.

    It matches neither the norm that does not subtract the mean, nor empty images.
    """

    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    eps: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, PixelNorm)
        return cls(eps=layer.eps) if layer.subtract_mean and x and x.numel else None

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, inverse_std = _aten.native_layer_norm.default(
            x.movedim(1, -1), [x.shape[1]], weight, bias, self.eps
        )
        return y.movedim(-1, 1), mean, inverse_std

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        pixels, grad_pixels = x.movedim(1, -1), grad_y.movedim(1, -1)
        mask = ["x" in wanted, "weight" in wanted, "bias" in wanted]
        grad_x, grad_weight, grad_bias = _aten.native_layer_norm_backward.default(
            grad_pixels,
            pixels,
            [x.shape[1]],
            mean,
            inverse_std,
            weight,
            weight,  # in the place of the bias, of which only the shape is read
            mask,
        )
        return None if grad_x is None else grad_x.movedim(-1, 1), grad_weight, grad_bias


class AtenLayerNorm1d(_PixelNorm):
    """layer_norm1d by aten's operator over the last axis, as AtenLayerNorm2d."""

    replaces = "layer_norm1d(x, weight, bias)"


class AtenLayerNorm2d(_PixelNorm):
    """layer_norm2d by aten's operator over the last axis: in channels_last without a copy.

    It matches neither the norm that does not subtract the mean, nor empty images.
    """

    replaces = "layer_norm2d(x, weight, bias)"


class AtenLayerNorm3d(_PixelNorm):
    """layer_norm3d by aten's operator over the last axis, as AtenLayerNorm2d."""

    replaces = "layer_norm3d(x, weight, bias)"


KERNELS: dict[str, type[Layer]] = {
    "aten/batch_norm1d": AtenBatchNorm1d,
    "aten/batch_norm2d": AtenBatchNorm2d,
    "aten/batch_norm3d": AtenBatchNorm3d,
    "aten/group_norm": AtenGroupNorm,
    "aten/instance_norm": AtenInstanceNorm,
    "aten/layer_norm1d": AtenLayerNorm1d,
    "aten/layer_norm2d": AtenLayerNorm2d,
    "aten/layer_norm3d": AtenLayerNorm3d,
}

"""ATen kernels of normalisation: torch's own operators, in one pass over the image."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.kernels.aten.convolution import dense
from graphnet.builtin.layers.group_norm import GroupNorm
from graphnet.builtin.layers.layer_norm import LayerNorm2d
from graphnet.builtin.layers.norm import BatchNorm2d
from graphnet.sdk import Kernel, Layer, Site

_aten = torch.ops.aten


class AtenBatchNorm2d(Kernel):
    """batch_norm2d by aten's batch norm and its backward.

    Leaves channels of one value or none alone, and running statistics in half precision, which aten widens.
    """

    replaces = "batch_norm2d(x, weight, bias, running_mean, running_var)"
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    updates: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    eps: float
    momentum: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x, running = site.layers, site.specs["x"], site.specs["running_mean"]
        assert isinstance(layer, BatchNorm2d)
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


def _in_order(x: Tensor) -> Tensor:
    """X as native_group_norm reads it: N C H W, and on the CPU N H W C too."""
    return dense(x) if x.device.type == "cpu" else x.contiguous()


class AtenGroupNorm(Kernel):
    """group_norm by aten's; leaves empty images alone."""

    replaces = "group_norm(x, weight, bias)"
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    num_groups: int
    eps: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, GroupNorm)
        return cls(num_groups=layer.num_groups, eps=layer.eps) if x and x.numel else None

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, c, h, w = x.shape
        weight, bias = (None if p is None else p.contiguous() for p in (weight, bias))
        results: tuple[Tensor, Tensor, Tensor] = _aten.native_group_norm.default(
            _in_order(x), weight, bias, n, c, h * w, self.num_groups, self.eps
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
        n, c, h, w = x.shape
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
                h * w,
                self.num_groups,
                mask,
            )
        )
        return grads


class AtenLayerNorm2d(Kernel):
    """layer_norm2d by aten's over the last axis: at once in channels_last, with a copy from N C H W.

    Leaves the norm that does not subtract the mean, and empty images, alone.
    """

    replaces = "layer_norm2d(x, weight, bias)"
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    eps: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, LayerNorm2d)
        return cls(eps=layer.eps) if layer.subtract_mean and x and x.numel else None

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, inverse_std = _aten.native_layer_norm.default(
            x.permute(0, 2, 3, 1), [x.shape[1]], weight, bias, self.eps
        )
        return y.permute(0, 3, 1, 2), mean, inverse_std

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        weight: Tensor | None,
        mean: Tensor,
        inverse_std: Tensor,
        wanted: frozenset[str],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        pixels, grad_pixels = x.permute(0, 2, 3, 1), grad_y.permute(0, 2, 3, 1)
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
        return None if grad_x is None else grad_x.permute(0, 3, 1, 2), grad_weight, grad_bias


KERNELS: dict[str, type[Layer]] = {
    "aten/batch_norm2d": AtenBatchNorm2d,
    "aten/group_norm": AtenGroupNorm,
    "aten/layer_norm2d": AtenLayerNorm2d,
}

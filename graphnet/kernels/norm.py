"""ATen kernels of normalisation: torch's own operators, in one pass over the image."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.layer import Kernel, Layer, Site
from graphnet.layers.norm import BatchNorm2d

_aten = torch.ops.aten


class AtenBatchNorm2d(Kernel):
    """batch_norm2d by aten's batch norm and its backward; leaves channels of one value or none alone."""

    replaces = "batch_norm2d(x, weight, bias, running_mean, running_var)"
    saves: ClassVar[tuple[str, ...]] = ("mean", "inverse_std")
    updates: ClassVar[tuple[str, ...]] = ("running_mean", "running_var")
    eps: float
    momentum: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, BatchNorm2d)
        if x is None or x.numel <= x.shape[1]:
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


KERNELS: dict[str, type[Layer]] = {"aten/batch_norm2d": AtenBatchNorm2d}

"""ATen kernels of classifiers' losses: log softmax and negative log likelihood by torch's operators."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.losses.classes import CrossEntropy
from graphnet.sdk import Kernel, Layer, Site

_aten = torch.ops.aten
_SUM = 2  # aten's number of this reduction


class AtenCrossEntropy(Kernel):
    """cross_entropy without label smoothing, over rows (..., C)."""

    outputs: ClassVar[tuple[str, ...]] = ("loss",)
    replaces = "cross_entropy(prediction, target)"
    saves: ClassVar[tuple[str, ...]] = ("log_p", "count")
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    ignore_index: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), prediction = site.layers, site.specs["prediction"]
        assert isinstance(layer, CrossEntropy)
        if layer.label_smoothing or prediction is None or not prediction.numel:
            return None
        return cls(ignore_index=layer.ignore_index)

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = prediction.movedim(1, -1).reshape(-1, prediction.shape[1])
        log_p = _aten._log_softmax.default(rows, 1, False)
        loss, count = _aten.nll_loss_forward.default(
            log_p, target.reshape(-1), None, _SUM, self.ignore_index
        )
        count = count.clamp_min(1)
        return loss / count, log_p, count

    def backward(
        self, grad_loss: Tensor, target: Tensor, log_p: Tensor, count: Tensor
    ) -> tuple[Tensor, None]:
        rows = _aten.nll_loss_backward.default(
            grad_loss / count, log_p, target.reshape(-1), None, _SUM, self.ignore_index, count
        )
        rows = _aten._log_softmax_backward_data.default(rows, log_p, 1, log_p.dtype)
        n, *places = target.shape
        return rows.view(n, *places, rows.shape[1]).movedim(-1, 1), None


KERNELS: dict[str, type[Layer]] = {"aten/cross_entropy": AtenCrossEntropy}

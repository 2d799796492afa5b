"""ATen kernels of classifiers' losses: log softmax, negative log likelihood and binary cross entropy."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor

from graphnet.builtin.losses.classes import NLL, BCEWithLogits, CrossEntropy
from graphnet.sdk import Kernel, Layer, Site, Specs

_aten = torch.ops.aten
_MEAN, _SUM = 1, 2  # aten's numbers of these reductions


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
        log_p = _aten._log_softmax.default(_rows(prediction), 1, False)
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


class AtenNLL(Kernel):
    """nll by aten's, over rows (..., C)."""

    outputs: ClassVar[tuple[str, ...]] = ("loss",)
    replaces = "nll(prediction, target)"
    saves: ClassVar[tuple[str, ...]] = ("count",)
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    ignore_index: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), prediction = site.layers, site.specs["prediction"]
        assert isinstance(layer, NLL)
        if prediction is None or not prediction.numel:
            return None
        return cls(ignore_index=layer.ignore_index)

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss, count = _aten.nll_loss_forward.default(
            _rows(prediction), target.reshape(-1), None, _SUM, self.ignore_index
        )
        count = count.clamp_min(1)
        return loss / count, count

    def backward(
        self, grad_loss: Tensor, target: Tensor, count: Tensor, specs: Specs
    ) -> tuple[Tensor, None]:
        labels = target.reshape(-1)
        classes = specs["prediction"].shape[1]
        shaped = grad_loss.expand(
            labels.numel(), classes
        )  # of the prediction, aten reads the shape
        rows = _aten.nll_loss_backward.default(
            grad_loss / count, shaped, labels, None, _SUM, self.ignore_index, count
        )
        return rows.view(*target.shape, classes).movedim(-1, 1), None


def _rows(prediction: Tensor) -> Tensor:
    """The classes of each place as a row."""
    return prediction.movedim(1, -1).reshape(-1, prediction.shape[1])


class AtenBCEWithLogits(Kernel):
    """binary_cross_entropy_with_logits by aten's, and its gradient in few passes.

    With s = sigmoid(prediction), p = pos_weight and w = 1 + (p - 1) target, the gradient is
    (w s - p target) / numel.
    """

    outputs: ClassVar[tuple[str, ...]] = ("loss",)
    replaces = "binary_cross_entropy_with_logits(prediction, target)"
    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    pos_weight: float

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,) = site.layers
        assert isinstance(layer, BCEWithLogits)
        return cls(pos_weight=layer.pos_weight)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        weight = None if self.pos_weight == 1 else prediction.new_full((), self.pos_weight)
        loss: Tensor = _aten.binary_cross_entropy_with_logits.default(
            prediction, target, None, weight, _MEAN
        )
        return loss

    def backward(
        self, grad_loss: Tensor, prediction: Tensor, target: Tensor
    ) -> tuple[Tensor, None]:
        slope = prediction.sigmoid()
        if self.pos_weight != 1:
            slope.addcmul_(slope, target, value=self.pos_weight - 1)
        slope.sub_(target, alpha=self.pos_weight)
        return slope.mul_(grad_loss / max(1, prediction.numel())), None


KERNELS: dict[str, type[Layer]] = {
    "aten/cross_entropy": AtenCrossEntropy,
    "aten/nll": AtenNLL,
    "aten/binary_cross_entropy_with_logits": AtenBCEWithLogits,
}

"""Losses of classifiers: cross entropy, negative log likelihood, and binary cross entropy of logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from graphnet.builtin.losses.pixel import check_shape
from graphnet.errors import GraphError
from graphnet.sdk import Layer, Loss, Spec, Specs


class LabelLoss(Loss):
    """A loss whose target holds a class label for each place of a prediction with its classes on axis 1.

    prediction: (N, C, ...), float; target: (N, ...), int64, from 0 to C - 1, or ignore_index for a place that
    does not count.

    Raises:
        GraphError: the prediction has no axis 1, or the target another shape or dtype.
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    ignore_index: int = -100

    def target_spec(self, prediction: Spec, name: str) -> Spec:
        if len(prediction.shape) < 2:
            raise GraphError(f"expected a prediction N x C x ..., with classes C, got {prediction}")
        n, _, *rest = prediction.shape
        return replace(prediction, shape=(n, *rest), dtype=torch.int64)

    def places(self, prediction: Spec, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which places count and their labels, (N, 1, ...), and their number, at least 1 (0-dim)."""
        expected = self.target_spec(prediction, "target")
        if (tuple(target.shape), target.dtype) != (expected.shape, expected.dtype):
            raise GraphError(
                f"expected a target {expected} for the prediction {prediction}, got "
                f"{Spec(tuple(target.shape), target.dtype)}"
            )
        counts = (target != self.ignore_index)[:, None]
        labels = target[:, None].masked_fill(~counts, 0)
        return counts, labels, counts.sum().clamp_min(1).to(prediction.dtype)

    def weight(self, *targets: Tensor) -> Tensor:
        (target,) = targets
        return (target != self.ignore_index).sum()

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[Any]]]:
        """Samples for the conformance kit, which draws no integers."""
        labels = torch.tensor([[2, 0, 1], [1, -100, 2]])
        return [
            (cls(), [(2, 3, 3), labels]),
            (cls(), [(4, 3), torch.tensor([2, 0, 1, 1])]),
            (cls(ignore_index=1), [(2, 4), torch.tensor([3, 1])]),
        ]


class NLL(LabelLoss):
    """The negative log likelihood: the mean of -prediction[n, target[n]], as torch.nn.NLLLoss.

    The prediction holds log probabilities, such as those of log_softmax with dim 1; its gradient is -1 / M at
    the label of each of the M places that count, and 0 elsewhere. If no place counts, the loss is 0.

    prediction: (N, C, ...), float; target: (N, ...), int64, from 0 to C - 1, or ignore_index for a place that
    does not count; loss: 0-dim. Backward keeps target.

    Raises:
        GraphError: the prediction has no axis 1, or the target another shape or dtype.

    >>> float(NLL().forward(torch.tensor([[-0.5, -1.0]]), torch.tensor([1])))
    1.0
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        counts, labels, count = self.places(_spec(prediction), target)
        chosen = prediction.gather(1, labels)
        return -chosen.masked_fill(~counts, 0).sum() / count

    def backward(self, grad_loss: Tensor, target: Tensor, specs: Specs) -> tuple[Tensor, None]:
        prediction = specs["prediction"]
        counts, labels, count = self.places(prediction, target)
        each = counts.to(prediction.dtype) * (-grad_loss / count)
        return grad_loss.new_zeros(prediction.shape).scatter(1, labels, each), None


class CrossEntropy(LabelLoss):
    """The mean of -log softmax(prediction)[n, target[n]] over the classes, as torch.nn.CrossEntropyLoss.

    With p = softmax of the prediction over axis 1, q = (1 - s) at the label plus s / C at each class, s =
    label_smoothing (Szegedy et al. 2016, section 7), and M places that count:
        loss = -sum of q log p / M;  the prediction's gradient is (p - q) / M, 0 at places that do not count.
    If no place counts, the loss is 0.

    prediction: (N, C, ...), float; target: (N, ...), int64, from 0 to C - 1, or ignore_index for a place that
    does not count; loss: 0-dim. Backward keeps target, and log p.

    Raises:
        GraphError: the prediction has no axis 1, or the target another shape or dtype.

    >>> float(CrossEntropy().forward(torch.zeros(1, 4), torch.tensor([2]))[0]) == torch.tensor(4.0).log()
    tensor(True)
    """

    saves: ClassVar[tuple[str, ...]] = ("log_p",)
    label_smoothing: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0

    def forward(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        counts, labels, count = self.places(_spec(prediction), target)
        log_p = prediction.log_softmax(1)
        loss = -log_p.gather(1, labels)
        if self.label_smoothing:
            s = self.label_smoothing
            loss = (1 - s) * loss - s * log_p.mean(1, keepdim=True)
        return loss.masked_fill(~counts, 0).sum() / count, log_p

    def backward(self, grad_loss: Tensor, target: Tensor, log_p: Tensor) -> tuple[Tensor, None]:
        counts, labels, count = self.places(_spec(log_p), target)
        s = self.label_smoothing
        change = log_p.exp() - s / log_p.shape[1]
        change = change.scatter_add(1, labels, change.new_full((), s - 1).expand(labels.shape))
        return change * (counts * (grad_loss / count)), None


class BCEWithLogits(Loss):
    """The mean binary cross entropy of sigmoid(prediction), as torch.nn.BCEWithLogitsLoss.

    With x the prediction, t the target in 0..1, and w = 1 + (pos_weight - 1) t:
        loss = mean((1 - t) x + w log(1 + exp(-x)));  dx = (1 - t + w (sigmoid(x) - 1)) / numel.
    pos_weight weighs the loss of the class 1, for classes of different sizes. The target gets no gradient.

    prediction, target: the same shape, any, float; loss: 0-dim. Backward keeps both.

    Raises:
        GraphError: the shapes differ.

    >>> BCEWithLogits().forward(torch.zeros(2), torch.tensor([0.0, 1.0]))
    tensor(0.6931)
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("target",)
    pos_weight: PositiveFloat = 1.0

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        check_shape("target", target, prediction)
        softplus = (-prediction).clamp_min(0) + (-prediction.abs()).exp().log1p()
        return ((1 - target) * prediction + self.weights(target) * softplus).mean()

    def weights(self, target: Tensor) -> Tensor:
        """Return the weight w of each element."""
        return 1 + (self.pos_weight - 1) * target

    def backward(
        self, grad_loss: Tensor, prediction: Tensor, target: Tensor
    ) -> tuple[Tensor, None]:
        slope = 1 - target + self.weights(target) * (prediction.sigmoid() - 1)
        return slope * (grad_loss / max(1, prediction.numel())), None


def _spec(tensor: Tensor) -> Spec:
    return Spec(tuple(tensor.shape), tensor.dtype)

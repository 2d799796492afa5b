"""Metrics that a training measures on its validation set."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import Metric


class Accuracy(Metric):
    """The share of places at which the class with the largest prediction is the target.

    prediction: (N, C, ...), a number for each class on axis 1, such as logits; target: (N, ...), integers.
    Places with a negative target do not count.

    Raises:
        DataError: the shapes do not fit each other, or the target holds no integers.

    >>> Accuracy()(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    0.5
    """

    higher_is_better = True

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        fits = prediction.ndim > 1 and (prediction.shape[0], *prediction.shape[2:]) == target.shape
        if not fits or target.is_floating_point():
            raise DataError(
                f"accuracy: expected predictions (N, C, ...) and integer class labels (N, ...), found "
                f"{tuple(prediction.shape)} and {tuple(target.shape)} {target.dtype}"
            )
        counted = target >= 0
        right = (prediction.argmax(1) == target) & counted
        return torch.stack(
            [right.reshape(len(target), -1).sum(1), counted.reshape(len(target), -1).sum(1)], 1
        )

    def combine(self, rows: Tensor) -> float:
        right, counted = rows.sum(0).tolist()
        return float(right / max(1, counted))

"""Metrics that a training measures on its validation set."""

from __future__ import annotations

from torch import Tensor

from graphnet.errors import DataError


def accuracy(prediction: Tensor, target: Tensor) -> float:
    """The share of places at which the class with the largest prediction is the target.

    Args:
        prediction: (N, C, ...), a number for each class on axis 1, such as logits.
        target: (N, ...), integers; places with a negative one do not count.

    Raises:
        DataError: the shapes do not fit each other, or the target holds no integers.

    >>> import torch
    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    0.5
    """
    fits = prediction.ndim > 1 and (prediction.shape[0], *prediction.shape[2:]) == target.shape
    if not fits or target.is_floating_point():
        raise DataError(
            f"accuracy: expected predictions (N, C, ...) and integer class labels (N, ...), found "
            f"{tuple(prediction.shape)} and {tuple(target.shape)} {target.dtype}"
        )
    counted = target >= 0
    right = (prediction.argmax(1) == target) & counted
    return float(right.sum()) / max(1, int(counted.sum()))

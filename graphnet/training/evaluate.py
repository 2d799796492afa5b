"""Evaluate: the metrics of a model on a validation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphnet.model import pad_to_multiple
from graphnet.sdk import Gallery, Pairs, as_unit

Metric = Callable[[Tensor, Tensor], float]
"""Takes prediction and target, both (N, C, H, W) in 0..1, and returns one number for all images."""


def score(
    validation: Pairs | Gallery,
    predict: Callable[[Tensor], Any],
    metrics: Mapping[str, Metric],
    *,
    device: torch.device,
    dtype: torch.dtype,
    divisor: int,
) -> dict[str, float]:
    """Compute each metric of a model on a validation set. Predictions are clamped to 0..1.

    Pairs are evaluated together. The images of a gallery differ in size, so they are evaluated one by one,
    and a metric is the mean over the images.

    Args:
        validation: the inputs and targets.
        predict: the model; it takes and returns (N, C, H, W).
        metrics: the metrics by name.
        device: the device of the model.
        dtype: the dtype of the model's inputs.
        divisor: the images of a gallery are padded by reflection to multiples of this number.

    Returns:
        The value of each metric by name.
    """
    if isinstance(validation, Pairs):
        outputs = predict_all(predict, validation.inputs, device, dtype)
        target = as_unit(validation.targets, dtype)
        return {name: metric(outputs, target) for name, metric in metrics.items()}
    totals = dict.fromkeys(metrics, 0.0)
    for index in range(len(validation)):
        image, target = (as_unit(tensor, dtype)[None] for tensor in validation[index])
        output = predict(pad_to_multiple(image, divisor).to(device)).cpu()
        output = output[..., : target.shape[-2], : target.shape[-1]].clamp(0.0, 1.0)
        for name, metric in metrics.items():
            totals[name] += metric(output, target)
    return {name: total / len(validation) for name, total in totals.items()}


def predict_all(
    predict: Callable[[Tensor], Any],
    inputs: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_size: int = 128,
) -> Tensor:
    """Return a model's outputs for a whole data set, (N, C, H, W) on the CPU, clamped to 0..1."""
    parts = [
        predict(as_unit(inputs[i : i + batch_size], dtype).to(device)).cpu()
        for i in range(0, len(inputs), batch_size)
    ]
    return torch.cat(parts).clamp_(0.0, 1.0)

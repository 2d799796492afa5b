"""Evaluate: the metrics of a model on a validation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphnet.model import pad_to_multiple
from graphnet.sdk import Gallery, Pairs, converted

Metric = Callable[[Tensor, Tensor], float]
"""Takes predictions and targets as the data set holds them, (N, ...), and returns one number for all."""


def score(
    validation: Pairs | Gallery,
    predict: Callable[[Tensor], Any],
    metrics: Mapping[str, Metric],
    *,
    device: torch.device,
    dtype: torch.dtype,
    target_dtype: torch.dtype,
    divisor: int,
) -> dict[str, float]:
    """Compute each metric of a model on a validation set.

    Pairs are evaluated together. The images of a gallery differ in size, so they are evaluated one by one,
    and a metric is the mean over the images.

    Args:
        validation: the inputs and targets.
        predict: the model; it takes and returns (N, ...).
        metrics: the metrics by name.
        device: the device of the model.
        dtype: the dtype of the model's inputs.
        target_dtype: the dtype in which the metrics take the targets, that of the loss.
        divisor: the images of a gallery are padded by reflection to multiples of this number.

    Returns:
        The value of each metric by name.
    """
    if isinstance(validation, Pairs):
        outputs = predict_all(predict, validation.inputs, device, dtype)
        target = converted(validation.targets, target_dtype)
        return {name: metric(outputs, target) for name, metric in metrics.items()}
    totals = dict.fromkeys(metrics, 0.0)
    for index in range(len(validation)):
        pair = zip(validation[index], (dtype, target_dtype), strict=True)
        image, target = (converted(tensor, one)[None] for tensor, one in pair)
        output = predict(pad_to_multiple(image, divisor).to(device)).cpu()
        output = output[..., : target.shape[-2], : target.shape[-1]]
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
    """Return a model's outputs for a whole data set, (N, ...) on the CPU."""
    parts = [
        predict(converted(inputs[i : i + batch_size], dtype).to(device)).cpu()
        for i in range(0, len(inputs), batch_size)
    ]
    return torch.cat(parts)

"""Evaluate: the metrics of a model on a validation set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import blame
from graphnet.model import SINGLE, Joined, Program, pad_to_multiple
from graphnet.sdk import Gallery, Metric, Pairs, converted
from graphnet.training.loader import Loader

_BATCH = 128  # pairs that are predicted at a time


def score(
    validation: Pairs | Gallery,
    predict: Callable[[Tensor], Any],
    metrics: Mapping[str, Metric],
    *,
    device: torch.device,
    dtype: torch.dtype,
    target_dtype: torch.dtype,
    divisor: int,
    processes: Joined = SINGLE,
) -> dict[str, float]:
    """Compute each metric of a model on a validation set.

    Pairs are predicted in batches. The images of a gallery differ in size, so they are predicted one by one.
    Several processes take the batches, or images, in turns, and each gets the metrics of all of them.

    Args:
        validation: the inputs and targets.
        predict: the model; it takes and returns (N, ...).
        metrics: the metrics by name.
        device: the device of the model.
        dtype: the dtype of the model's inputs.
        target_dtype: the dtype in which the metrics take the targets, that of the loss.
        divisor: the images of a gallery are padded by reflection to multiples of this number.
        processes: those that measure together.

    Returns:
        The value of each metric by name.

    Raises:
        LayerError: a metric's own code failed; the message names the metric.
    """
    measured: dict[str, Tensor] = {}
    size = 1 if isinstance(validation, Gallery) else _BATCH
    starts = range(0, len(validation), size)
    for start in starts[processes.rank :: processes.count]:
        image, target = _batch(validation, start, dtype, target_dtype)
        output = predict(_padded(image, validation, divisor).to(device)).cpu()
        if isinstance(validation, Gallery):
            output = output[..., : target.shape[-2], : target.shape[-1]]
        for name, metric in metrics.items():
            with blame(f"metric {name!r}: ", "measure"), torch.no_grad():
                measured[f"{start} {name}"] = metric.rows(output, target)
    measured = processes.tensors(measured)
    return _combined(metrics, {n: [measured[f"{start} {n}"] for start in starts] for n in metrics})


def measure(
    program: Program, loader: Loader, metrics: Mapping[str, Metric], *, epoch: int
) -> dict[str, float]:
    """Compute the loss and each metric of a program's model on the batches of a loader.

    Args:
        program: has the model's present weights, and the loss.
        loader: the batches; they may have other sizes than those of the training.
        metrics: the metrics by name; they take the prediction and the target.
        epoch: the number of the epoch, for messages.

    Returns:
        "validation_loss", the mean over all samples, then the value of each metric by name.
    """
    values = [program.plan.values[name] for name in program.plan.inputs]
    inputs = sum(not value.port for value in values)
    rows: dict[str, list[Tensor]] = {name: [] for name in metrics}
    total, count = torch.zeros((), dtype=torch.float64, device=program.device), 0
    for batch in loader.epoch(epoch):
        tensors = batch.converted(values)
        count += len(batch)
        with blame(batch.where, "the prediction"):
            total += program.loss(*tensors) * len(batch)
            if not metrics:
                continue
            output = program.predict(*tensors[:inputs]).cpu()
        for name, metric in metrics.items():
            with blame(f"metric {name!r}: ", "measure"), torch.no_grad():
                rows[name].append(metric.rows(output, tensors[inputs].cpu()))
    return {"validation_loss": float(total) / count, **_combined(metrics, rows)}


def _combined(
    metrics: Mapping[str, Metric], rows: Mapping[str, Sequence[Tensor]]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        with blame(f"metric {name!r}: ", "combine"):
            found[name] = metric.combine(torch.cat([*rows[name]]))
    return found


def _batch(
    validation: Pairs | Gallery, start: int, dtype: torch.dtype, target_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The image with this number, as a batch of one; or the pairs from this number on."""
    if isinstance(validation, Gallery):
        image, target = validation[start]
        return converted(image, dtype)[None], converted(target, target_dtype)[None]
    part = slice(start, start + _BATCH)
    inputs, targets = validation.inputs[part], validation.targets[part]
    return converted(inputs, dtype), converted(targets, target_dtype)


def _padded(image: Tensor, validation: Pairs | Gallery, divisor: int) -> Tensor:
    return pad_to_multiple(image, divisor) if isinstance(validation, Gallery) else image

"""A plan that does not fit into the machine's memory is refused before anything is allocated."""

from __future__ import annotations

import resource
from typing import Any

import pytest
import torch

import graphnet as gn
from graphnet.errors import MemoryBudgetError
from graphnet.model import fits


def wide(out_channels: int, in_channels: int) -> gn.Model:
    conv = {"out_channels": out_channels, "kernel_size": 1}
    return gn.Model({"input": {"channels": in_channels}, "layers": [{"conv2d": conv}]})


TRAINING: dict[str, Any] = {"loss": "mse", "optimizer": {"sgd": {"lr": 0.1}}, "device": "cpu"}


def test_weights_that_are_too_large_are_named_before_they_are_made() -> None:
    wide(1, 1).compile((1, 1, 1, 1), **TRAINING)  # the first one imports much
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MemoryBudgetError) as caught:
        wide(1_000_000, 1_000_000).compile((1, 1_000_000, 1, 1), **TRAINING)
    message = str(caught.value)
    assert "conv2d_1.weight (1000000x1000000x1x1 float32, 3.64 TiB)" in message
    assert "The weights and the optimizer's states alone take 3.64 TiB" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (64 << 10)  # KiB


def test_a_batch_that_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shape = wide(8, 8), (64, 8, 32, 32)
    plan = model.compile(shape, **TRAINING).plan
    weights = sum(plan.values[name].spec.size_bytes for name in plan.slots)
    limit = weights + (plan.peak_bytes - weights) // 4
    monkeypatch.setattr(fits, "device_memory", lambda device: limit)
    with pytest.raises(MemoryBudgetError, match=r"A batch of about 15 would fit.*recomputes"):
        model.compile(shape, **TRAINING)
    smaller = model.compile((15, *shape[1:]), **TRAINING)
    assert smaller.plan.peak_bytes <= limit


def test_a_prediction_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = wide(8, 8), torch.zeros(1, 8, 64, 64)
    model.predict(x)
    monkeypatch.setattr(fits, "device_memory", lambda device: 1000)
    for predict in (model.predict, wide(8, 8).predict):  # a new size, and a new model
        with pytest.raises(
            MemoryBudgetError, match=r"and the machine has 1000 B.*predicted in tiles"
        ):
            predict(torch.zeros(1, 8, 65, 64))
    assert model.predict(x).shape == x.shape  # its plan exists

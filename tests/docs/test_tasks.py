"""The examples of examples/tasks: ten steps of each lower the loss of a batch, and metrics are measured."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

FILE = Path(__file__).parents[2] / "examples" / "tasks" / "run.py"


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tasks_run", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["characters", "digits", "heartbeats", "stacks"])
def test_ten_steps_lower_the_loss_of_a_batch(tasks: ModuleType, name: str) -> None:
    assert name in tasks.BASELINES
    training = tasks.trainer(name, "batch_size=4")
    batch = training.feed.made(*training.feed.given(0))
    losses = [training.program.step_packed(*batch).item() for _ in range(10)]
    assert losses[-1] < 0.95 * losses[0]


def test_first_loss_on_characters_is_that_of_torchs_cross_entropy(tasks: ModuleType) -> None:
    training = tasks.trainer("characters", "batch_size=2")
    x, target = training.feed.made(*training.feed.given(0))
    logits = training.program.predict(x)
    assert logits.shape == (2, 97, 64)
    expected = F.cross_entropy(logits, target)
    assert training.program.step_packed(x, target).item() == pytest.approx(expected.item())
    assert tasks.data.bits(logits, target) == pytest.approx(expected.item() / math.log(2))


def test_signal_to_noise_ratio_by_hand(tasks: ModuleType) -> None:
    target = torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]]])
    found = target + torch.tensor([[[0.5, 0.0]], [[0.0, 0.1]]])
    assert tasks.data.snr(found, target) == pytest.approx(20.0)  # 25 / 0.25 and 1 / 0.01

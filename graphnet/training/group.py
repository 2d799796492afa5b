"""Group: the losses of the steps since the last record, summed on the device until they are read."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from graphnet.training.state import GroupState


class Group:
    """A group of steps: the sums of their losses and of what the program reports.

    Args:
        device: where the losses are.
        before: the group's steps before a training was resumed.

    >>> group = Group(torch.device("cpu"))
    >>> for loss in (1.0, 3.0):
    ...     group.add(torch.tensor(loss), {"mse": torch.tensor(loss)})
    >>> group.read()
    >>> group.steps, group.loss, group.reported
    (2, 2.0, {'mse': 2.0})
    """

    def __init__(self, device: torch.device, before: GroupState | None = None) -> None:
        before = before or GroupState()
        self._device = device
        self._sum = self._on_device(before.loss)
        self._reported = {name: (self._on_device(s), n) for name, (s, n) in before.reported.items()}
        self.samples, self.steps = before.samples, before.steps
        self.steps_here = 0  # without those before the training was resumed
        self.loss = 0.0
        self.reported: Mapping[str, float] = {}
        self._started = time.perf_counter()
        self.elapsed_s = 0.0

    def add(self, loss: Tensor, reported: Mapping[str, Tensor], samples: int = 1) -> None:
        """Add the mean loss of a batch, and the numbers that the program reports; nothing is read yet.

        `samples` is the weight of the batch in the mean.
        """
        self._sum += loss.to(torch.float64) * samples
        for name, value in reported.items():
            total, count = self._reported.get(name, (self._on_device(0.0), 0))
            self._reported[name] = total + value.detach().to(torch.float64), count + 1
        self.samples += samples
        self.steps += 1
        self.steps_here += 1

    def read(self) -> None:
        """Wait for the steps; set `loss` and `reported` to the means, and `elapsed_s` to the time here."""
        self.loss = self.total / self.samples if self.samples else 0.0
        self.reported = {name: float(s) / n for name, (s, n) in self._reported.items()}
        self.elapsed_s = time.perf_counter() - self._started

    @property
    def total(self) -> float:
        """The sum of the losses, each times its samples. Reading it waits for the device."""
        return float(self._sum)

    def state(self) -> GroupState:
        """The sums as plain data, for a checkpoint."""
        reported = {name: (float(total), count) for name, (total, count) in self._reported.items()}
        return GroupState(
            loss=self.total, samples=self.samples, steps=self.steps, reported=reported
        )

    def _on_device(self, number: float) -> Tensor:
        return torch.tensor(number, dtype=torch.float64, device=self._device)

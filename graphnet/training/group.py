"""Group: the losses of the steps since the last record, which stay on the device until they are read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graphnet.training.state import GroupState

_MOST_PENDING = 4096  # steps whose losses are on the device


class Group:
    """A group of steps: the sums of their losses and of what the program reports.

    Args:
        before: the group's steps before a training was resumed.

    >>> group = Group()
    >>> for loss in (1.0, 3.0):
    ...     group.add(torch.tensor(loss), {"mse": torch.tensor(loss)})
    >>> group.read()
    >>> group.steps, group.loss, group.reported
    (2, 2.0, {'mse': 2.0})
    """

    def __init__(self, before: GroupState | None = None) -> None:
        before = before or GroupState()
        self._sum = before.loss
        self._reported = dict(before.reported)
        self._pending: list[tuple[Tensor, Mapping[str, Tensor], int]] = []
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
        self._pending.append((loss, reported, samples))
        self.samples += samples
        self.steps += 1
        self.steps_here += 1
        if len(self._pending) == _MOST_PENDING:
            self._read_pending()

    def read(self) -> None:
        """Wait for the steps; set `loss` and `reported` to the means, and `elapsed_s` to the time here."""
        self.loss = self.total / self.samples if self.samples else 0.0
        self.reported = {name: total / count for name, (total, count) in self._reported.items()}
        self.elapsed_s = time.perf_counter() - self._started

    @property
    def total(self) -> float:
        """The sum of the losses, each times its samples. Reading it waits for the device."""
        self._read_pending()
        return self._sum

    def state(self) -> GroupState:
        """The sums as plain data, for a checkpoint."""
        total = self.total
        return GroupState(
            loss=total, samples=self.samples, steps=self.steps, reported=self._reported
        )

    def _read_pending(self) -> None:
        pending, self._pending = self._pending, []
        losses = _numbers([loss for loss, _, _ in pending])
        for loss, (_, _, samples) in zip(losses, pending, strict=True):
            self._sum += loss * samples  # `sum` rounds in another way, from Python 3.12 on
        for name in {name: None for _, reported, _ in pending for name in reported}:
            found = _numbers([reported[name] for _, reported, _ in pending if name in reported])
            total, count = self._reported.get(name, (0.0, 0))
            for number in found:
                total += number
            self._reported[name] = total, count + len(found)


def _numbers(scalars: Sequence[Tensor]) -> list[float]:
    """The values of 0-dim tensors of one dtype and device, which are read at once."""
    return torch.stack(tuple(scalars)).double().tolist() if scalars else []

"""Means: sums numbers on the device over a group of steps, and reads their means at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor


class Means:
    """The means of what a program reports, by name.

    >>> means = Means()
    >>> for value in (1.0, 3.0):
    ...     means.add({"mse": torch.tensor(value)})
    >>> means.take()
    {'mse': 2.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def add(self, reported: Mapping[str, Tensor]) -> None:
        """Add the numbers of one step; nothing is read from the device."""
        for name, value in reported.items():
            wide = value.detach().to(torch.float64)
            self._sums[name] = self._sums[name] + wide if name in self._sums else wide.clone()
            self._counts[name] += 1

    def take(self) -> dict[str, float]:
        """Return the means since the last call."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

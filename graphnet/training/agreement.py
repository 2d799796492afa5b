"""Agreement: all processes of a training stop after the same step, though signals come at different ones."""

from __future__ import annotations

import time
from collections.abc import Callable

from graphnet.model import Joined

_EVERY_S = 0.5  # so often processes ask each other; it takes about a millisecond


class Agreement:
    """Whether a training stops before the next step, in all of its processes or in none.

    Several processes stop only after an update, since each has its own sums of gradients before it.

    Args:
        processes: those that train together.
        every: the number of steps for one update.

    >>> from graphnet.model import SINGLE
    >>> Agreement(SINGLE, every=2).stops(3, lambda: True)
    True
    """

    def __init__(self, processes: Joined, *, every: int) -> None:
        self._processes = processes
        self._every = every
        self._next_step = 0
        self._asked_at: tuple[int, float] | None = None

    def stops(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Whether the training stops after so many steps; each process calls it before each step."""
        if self._processes.count == 1:
            return should_stop()
        if step < self._next_step or step % self._every:
            return False
        stops, ahead = self._processes.greatest(int(should_stop()), self._steps_ahead(step))
        self._next_step = step + ahead
        return bool(stops)

    def _steps_ahead(self, step: int) -> int:
        """The number of steps until the next question; they agree on the greatest."""
        now, asked = time.monotonic(), self._asked_at
        self._asked_at = step, now
        if asked is None or now == asked[1]:
            return 1
        return max(1, int(_EVERY_S * (step - asked[0]) / (now - asked[1])))

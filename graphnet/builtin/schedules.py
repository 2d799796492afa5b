"""Learning-rate schedules: constant, warm-up, cosine and one-cycle.

A schedule's `factor` multiplies the learning rate of each step.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from graphnet.sdk import Fraction, Schedule


class ConstantSchedule(Schedule):
    """The same learning rate in all steps."""

    def factor(self, step: int, total: int) -> float:
        return 1.0


class WarmUp(Schedule):
    """A linear rise over the first `steps` steps, then a constant learning rate.

    >>> [WarmUp(steps=2).factor(step, 4) for step in range(4)]
    [0.5, 1.0, 1.0, 1.0]
    """

    steps: Annotated[int, Field(gt=0)]

    def factor(self, step: int, total: int) -> float:
        return min(1.0, (step + 1) / self.steps)


class Cosine(Schedule):
    """Half a cosine from 1 down to `final` (Loshchilov & Hutter 2017, eq. 5), after a linear warm-up.

    >>> [round(Cosine().factor(step, 4), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """

    final: Fraction = 0.0
    warm_up_steps: Annotated[int, Field(ge=0)] = 0

    def factor(self, step: int, total: int) -> float:
        if step < self.warm_up_steps:
            return (step + 1) / self.warm_up_steps
        progress = (step - self.warm_up_steps) / max(1, total - self.warm_up_steps)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))


class OneCycle(Schedule):
    """One rise and one fall of the learning rate (Smith & Topin 2018), as torch's OneCycleLR with cosines.

    The factor rises from 1 / div_factor to 1 over the first fraction `pct_start` of the steps, then falls to
    1 / (div_factor * final_div_factor).
    """

    pct_start: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    div_factor: Annotated[float, Field(ge=1.0)] = 25.0
    final_div_factor: Annotated[float, Field(ge=1.0)] = 1e4

    def factor(self, step: int, total: int) -> float:
        low, end = 1.0 / self.div_factor, 1.0 / (self.div_factor * self.final_div_factor)
        rise = self.pct_start * total - 1.0
        if step < rise:
            return _anneal(low, 1.0, step / rise)
        return _anneal(1.0, end, min(1.0, (step - rise) / (total - 1.0 - rise)))


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))

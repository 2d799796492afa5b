"""Schedule: the learning rate over a run."""

from __future__ import annotations

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition


class Schedule(Definition):
    """The learning rate over a run, as a factor of the optimizer's; a subclass defines `factor`.

    >>> class Halfway(Schedule):
    ...     def factor(self, step, total):
    ...         return 1.0 if 2 * step < total else 0.1
    >>> [Halfway().factor(step, 4) for step in range(4)]
    [1.0, 1.0, 0.1, 0.1]
    """

    def factor(self, step: int, total: int) -> float:
        """The factor of one step.

        Args:
            step: the step, from 0 to total - 1.
            total: the number of steps of the run.
        """
        raise ContractError(f"{type(self).__name__} defines no factor(step, total)")

"""Schedule: the learning rate over a run."""

from __future__ import annotations

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition


class Schedule(Definition):
    """The learning rate over a run, as a factor of the optimizer's."""

    def factor(self, step: int, total: int) -> float:
        """The factor in step 0 .. total - 1 of a run of `total` steps."""
        raise ContractError(f"{type(self).__name__} defines no factor(step, total)")

"""Prepare: make a plan ready to run by an executor that needs no compiler."""

from __future__ import annotations

from collections.abc import Mapping

from graphnet.executors.eager import Eager
from graphnet.executors.reference import Reference
from graphnet.plan import Plan
from graphnet.sdk import Executor, Run

_INTERPRETED: Mapping[str, Executor] = {"eager": Eager(), "reference": Reference()}


def prepare(plan: Plan, executor: str) -> Run:
    """Make a plan ready to run by "eager" or "reference".

    Args:
        plan: the plan to run.
        executor: "eager" or "reference".

    Returns:
        The run: call it with the plan's arguments, in order.
    """
    return _INTERPRETED[executor].prepare(plan)

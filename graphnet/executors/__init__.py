"""Executors: each turns a plan into a function from its arguments to its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from graphnet.errors import UnknownNameError, nearest
from graphnet.executors import eager, reference
from graphnet.plan import Plan

Run = Callable[..., tuple[Tensor, ...]]
EXECUTORS: Mapping[str, Callable[[Plan], Run]] = {
    "eager": eager.prepare,
    "reference": reference.prepare,
}


def prepare(plan: Plan, executor: str) -> Run:
    """The function that runs a plan. Raises UnknownNameError for an unknown executor."""
    if executor not in EXECUTORS:
        raise UnknownNameError(f"unknown executor {executor!r}. {nearest(executor, EXECUTORS)}")
    return EXECUTORS[executor](plan)

"""Executors: each turns a plan into a function from its arguments to its outputs."""

from __future__ import annotations

from collections.abc import Mapping

from graphnet.executors.eager import Eager
from graphnet.executors.executor import Event, Executor, Make, Run, as_given
from graphnet.executors.heap import keep_freed_memory
from graphnet.executors.reference import Reference
from graphnet.plan import Plan

__all__ = ["Event", "Executor", "Make", "Run", "as_given", "keep_freed_memory", "prepare"]

_INTERPRETED: Mapping[str, Executor] = {"eager": Eager(), "reference": Reference()}


def prepare(plan: Plan, executor: str) -> Run:
    """A plan made ready by "eager" or "reference", which need nothing but Python."""
    return _INTERPRETED[executor].prepare(plan)

"""Outcome: the exceptions for a check that does not pass."""

from __future__ import annotations

from graphnet.errors import GraphnetError


class CheckFailure(GraphnetError, AssertionError):
    """A layer breaks its contract; the message says what was expected, what was found, and what to do."""


class NotApplicable(Exception):
    """A check does not apply to this case, or cannot run on this machine; the message says why."""


class NoSample(GraphnetError):
    """No sample could be made for a layer: its author must give one, or correct the error it raises."""

"""Outcome: the ways in which a check does not pass: failed, not applicable, no sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphnet.errors import GraphnetError

if TYPE_CHECKING:
    pass


class CheckFailure(GraphnetError, AssertionError):
    """A layer breaks its contract: what was expected, what was found, what to do."""


class NotApplicable(Exception):
    """The check does not concern this case, or cannot run here; the message says why."""


class NoSample(GraphnetError):
    """No sample could be made for a layer: its author has to give one, or to mend what it raises."""

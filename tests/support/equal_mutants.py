"""Mutants that compute the same as the original, each with the reason: they are set aside."""

from __future__ import annotations

EQUAL: dict[str, str] = {}

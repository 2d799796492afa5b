"""The conformance kit: checks that any plugin author runs on a layer, kernel or optimizer.

    from graphnet.testing import LayerTests

    class TestSwish(LayerTests):
        layer = Swish(beta=2.0)

`run_checks` returns the results as a report, and `graphnet check acme/swish` prints them as a table. A layer
and samples come in; reports go out. It imports training and below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphnet.graph import Cost
from graphnet.testing.case import Case
from graphnet.testing.cases import CHECKED_KINDS, cases_for, checked_kinds, varied_cases_for
from graphnet.testing.check import Check
from graphnet.testing.checks.all import CHECKS
from graphnet.testing.checks.cost import LayerCost, observed_cost
from graphnet.testing.checks.rules import RULE_CHECKS
from graphnet.testing.floor import FLOORS, Floor
from graphnet.testing.layer_model import model_of, with_random_weights
from graphnet.testing.level import Level
from graphnet.testing.outcome import CheckFailure, NoSample, NotApplicable
from graphnet.testing.report import Report, Row, Status, checks_for, run_checks
from graphnet.testing.rule_case import RuleCase
from graphnet.testing.sample import Sample
from graphnet.testing.vary import Field

if TYPE_CHECKING:
    from graphnet.testing.pytest_suite import (
        LayerTests,
        assert_checks_pass,
        parametrize_with_checks,
    )

__all__ = [
    "CHECKED_KINDS",
    "CHECKS",
    "FLOORS",
    "RULE_CHECKS",
    "Case",
    "Check",
    "CheckFailure",
    "Cost",
    "Field",
    "Floor",
    "LayerCost",
    "LayerTests",
    "Level",
    "NoSample",
    "NotApplicable",
    "Report",
    "Row",
    "RuleCase",
    "Sample",
    "Status",
    "assert_checks_pass",
    "cases_for",
    "checked_kinds",
    "checks_for",
    "model_of",
    "observed_cost",
    "parametrize_with_checks",
    "run_checks",
    "varied_cases_for",
    "with_random_weights",
]


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> Any:
        """Import the names that need pytest on their first use: `graphnet check` works without pytest."""
        if name in ("LayerTests", "assert_checks_pass", "parametrize_with_checks"):
            from graphnet.testing import pytest_suite as suite

            return getattr(suite, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

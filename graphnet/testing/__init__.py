"""The conformance kit: checks that any plugin author runs on a layer, kernel or optimizer.

    from graphnet.testing import LayerTests

    class TestSwish(LayerTests):
        layer = Swish(beta=2.0)

`run_checks` gives the same as a report, `graphnet check acme/swish` as a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphnet.cost import Cost
from graphnet.testing.case import Case, Sample
from graphnet.testing.check import Check, CheckFailure, NotApplicable
from graphnet.testing.checks import CHECKS
from graphnet.testing.cost import LayerCost, observed_cost
from graphnet.testing.report import Report, Row, Status, cases_for, checks_for, run_checks
from graphnet.testing.rule_case import RuleCase
from graphnet.testing.rules import RULE_CHECKS
from graphnet.testing.samples import NoSample

if TYPE_CHECKING:
    from graphnet.testing.suite import LayerTests, parametrize_with_checks

__all__ = [
    "CHECKS",
    "RULE_CHECKS",
    "Case",
    "Check",
    "CheckFailure",
    "Cost",
    "LayerCost",
    "LayerTests",
    "NoSample",
    "NotApplicable",
    "Report",
    "Row",
    "RuleCase",
    "Sample",
    "Status",
    "cases_for",
    "checks_for",
    "observed_cost",
    "parametrize_with_checks",
    "run_checks",
]


def __getattr__(name: str) -> Any:
    """What needs pytest is imported when it is asked for: `graphnet check` works without."""
    if name in ("LayerTests", "parametrize_with_checks"):
        from graphnet.testing import suite

        return getattr(suite, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

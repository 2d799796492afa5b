"""Report: run all checks on all samples of a layer or optimizer, and report the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from graphnet.errors import GraphnetError, UnknownNameError, nearest
from graphnet.sdk import Definition, MultiTensorKernel, Registry, registry_or_default
from graphnet.testing.author import raised, with_lines
from graphnet.testing.case import Case
from graphnet.testing.cases import Given, of_rules, varied_cases_for
from graphnet.testing.check import Check
from graphnet.testing.checks.all import CHECKS
from graphnet.testing.checks.purity import runs
from graphnet.testing.checks.rules import RULE_CHECKS, rule_runs
from graphnet.testing.floor import floor_for
from graphnet.testing.level import Level, levels_of
from graphnet.testing.outcome import CheckFailure, NotApplicable
from graphnet.testing.rule_case import RuleCase
from graphnet.testing.vary import Field, Fields

FLOOR = "enough_checks"
"""The name of the row that says that fewer checks ran than the floor of the kind."""


class Status(StrEnum):
    """The result of a check.

    >>> [status.value for status in Status]
    ['passed', 'failed', 'skipped', 'failed as expected']
    """

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    EXPECTED = "failed as expected"


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one check of a layer or optimizer, and the reason if it failed or was skipped.

    >>> Row("gradient_numerical", Status.SKIPPED, "it has no backward").status.value
    'skipped'
    """

    check: str
    status: Status
    message: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The results of all checks of one layer or optimizer, in the order of the checks.

    Args:
        layer: its name.
        rows: a row for each check. One more, "enough_checks", says if too few checks ran.
        fields: what was tried for each field of its class.
        untried: why nothing could be run on this machine; empty if it could.

    >>> from graphnet.builtin import ReLU
    >>> report = run_checks(ReLU())
    >>> report.failures
    ()
    >>> report.ran > 30
    True
    """

    layer: str
    rows: tuple[Row, ...]
    fields: Fields = field(default_factory=dict)
    untried: str = ""

    @property
    def failures(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.status is Status.FAILED)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def ran(self) -> int:
        """How many checks ran, with whatever result."""
        return sum(row.status is not Status.SKIPPED for row in self.rows if row.check != FLOOR)

    @property
    def skipped(self) -> Mapping[str, tuple[str, ...]]:
        """The reason -> the checks that were skipped for it."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.status is Status.SKIPPED:
                found.setdefault(row.message, []).append(row.check)
        return {reason: tuple(checks) for reason, checks in found.items()}

    @property
    def only_defaults(self) -> tuple[str, ...]:
        """The configuration fields that had their default in every sample."""
        return tuple(name for name, one in self.fields.items() if one.only_default)

    @property
    def levels(self) -> tuple[Level, ...]:
        """What the results let one rely on."""
        statuses = {row.check: (str(row.status), row.message) for row in self.rows}
        return levels_of(statuses, ok=self.ok and not self.untried)

    def details(self) -> str:
        """Say how many checks ran, which were skipped and why, and what was tried for each field."""
        lines = [f"{self.ran} checks ran, {sum(map(len, self.skipped.values()))} were skipped"]
        for reason, checks in self.skipped.items():
            lines.append(
                f"  skipped, {reason.splitlines()[0] if reason else 'without a reason'}: "
                f"{', '.join(checks)}"
            )
        lines += [f"  field {name}: {_tried(one)}" for name, one in self.fields.items()]
        return "\n".join(lines)


def _tried(one: Field) -> str:
    values = ", ".join(map(repr, one.values))
    refused = f"; refused: {', '.join(map(repr, one.refused))}" if one.refused else ""
    return (
        f"only its default {values} was tried{refused}" if one.only_default else f"tried {values}"
    )


def run_checks(
    target: Definition | type[Definition],
    samples: Given | None = None,
    *,
    registry: Registry | None = None,
    checks: Iterable[Check[Any]] | None = None,
    slow: bool = False,
    progress: Callable[[Check[Any]], None] | None = None,
    expected_failures: Mapping[str, str] = MappingProxyType({}),
) -> Report:
    """Run the checks on a layer, loss, kernel or optimizer.

    The kit adds samples in which fields of the class have other values. If all checks run, there must be as
    many as the kind of the target has at least: else the row "enough_checks" fails.

    Args:
        target: a definition, or a class of definitions.
        samples: the samples; None takes the author's `samples`, or generates some.
        registry: the definitions that may be used; None takes those of the installed plugins.
        checks: the checks; None takes all that apply to the class.
        slow: whether to run slow checks too.
        progress: called with each check before it runs.
        expected_failures: check -> the reason why it fails. If it passes nevertheless, that is a failure.

    Raises:
        UnknownNameError: `expected_failures` names a check that does not exist.

    >>> from graphnet.builtin import ReLU
    >>> run_checks(ReLU(), checks=checks_for(ReLU)[:3]).failures
    ()
    """
    cls = target if isinstance(target, type) else type(target)
    require_known(expected_failures, cls)
    name = registry_or_default(registry).name_of(cls)
    if issubclass(cls, MultiTensorKernel):
        name += " (kernel)"  # a kernel may have the name of its rule
    try:
        cases, tried = varied_cases_for(target, samples, registry=registry)
    except Exception as error:  # the author's own code: `samples`, `match`, a pattern
        return Report(name, (unusable(cls, error),))
    rows: list[Row] = []
    for check in checks_for(cls) if checks is None else checks:
        if slow or not check.slow:
            if progress is not None:
                progress(check)
            row = judge(check, cases)
            rows.append(against(row, expected_failures.get(check.name)))
    untried = "; ".join(dict.fromkeys(c.untried or "" for c in cases))
    if not all(case.untried for case in cases):
        untried = ""
    if checks is None and not untried:
        rows += enough(cls, cases, rows, expected_failures.get(FLOOR))
    return Report(name, tuple(_once(rows)), tried, untried)


def require_known(expected_failures: Mapping[str, str], cls: type) -> None:
    """Raise UnknownNameError for a check that does not exist."""
    known = [*(check.name for check in checks_for(cls)), FLOOR]
    for name in expected_failures:
        if name not in known:
            raise UnknownNameError(
                f"expected_failures names {name!r}, which is no check of {cls.__name__}. "
                f"{nearest(name, known)}"
            )


def against(row: Row, reason: str | None) -> Row:
    """Return the row of a check that is expected to fail, for a reason; None if it is not."""
    if reason is None or row.status is Status.SKIPPED:
        return row
    if row.status is Status.FAILED:
        return Row(row.check, Status.EXPECTED, reason)
    passed = f"it passes, but expected_failures says that it fails: {reason}. Take it out of there."
    return Row(row.check, Status.FAILED, passed)


def enough(
    cls: type, cases: Sequence[Case | RuleCase], rows: Sequence[Row], reason: str | None = None
) -> list[Row]:
    """Return a row that has failed if fewer checks ran than the floor; nothing if one has failed."""
    if any(row.status is Status.FAILED for row in rows):
        return []
    floor = floor_for(cls, cases)
    ran = sum(row.status is not Status.SKIPPED for row in rows)
    if ran >= floor.least:
        return []
    skips = {
        row.message.split("\n", 1)[0]: row.check for row in rows if row.status is Status.SKIPPED
    }
    told = "; ".join(reason for reason in skips if reason)
    message = (
        f"expected at least {floor.least} checks to run on a {floor.kind}, found {ran}. "
        f"The others were skipped: {told}. Give samples on which more of them apply."
    )
    return [against(Row(FLOOR, Status.FAILED, message), reason)]


def unusable(cls: type, error: Exception) -> Row:
    """Return the row for a target without cases: its first check has failed."""
    own = isinstance(error, GraphnetError)  # it says what is missing
    message = str(error) if own else f"the samples cannot be made: {raised(error)}"
    message = with_lines(message, error)
    return Row((rule_runs if of_rules(cls) else runs).name, Status.FAILED, message)


def _once(rows: Sequence[Row]) -> Sequence[Row]:
    """Leave the author's lines of one error to the first check that met it."""
    met: dict[str, str] = {}
    found = []
    for row in rows:
        message, _, lines = row.message.partition("\n  File ")
        if row.status is Status.FAILED and lines:
            if lines in met:
                row = replace(row, message=f"{message}\n  (at the lines that {met[lines]} shows)")
            else:
                met[lines] = row.check
        found.append(row)
    return found


def checks_for(cls: type) -> tuple[Check[Any], ...]:
    """Return the checks that apply to a class.

    >>> from graphnet.builtin import SGD, ReLU
    >>> {check.name for check in checks_for(SGD)} < {check.name for check in checks_for(ReLU)}
    False
    """
    return RULE_CHECKS if of_rules(cls) else CHECKS


def judge(check: Check[Any], cases: Sequence[Case | RuleCase]) -> Row:
    """Run a check on all cases: it fails if one case fails, and is skipped if all cases are skipped."""
    reasons: dict[str, None] = {}
    passed = False
    for case in cases:
        row = judge_case(check, case)
        if row.status is Status.FAILED:
            return replace(row, message=f"{case}: {row.message}")
        passed = passed or row.status is Status.PASSED
        reasons.setdefault(row.message)
    if passed:
        return Row(check.name, Status.PASSED)
    first, *others = [reason for reason in reasons if reason] or [""]
    more = f" (and {len(others)} other reasons)" if len(others) > 1 else ""
    told = f"{first}; {others[0]}" if len(others) == 1 else f"{first}{more}"
    return Row(check.name, Status.SKIPPED, told)


def judge_case(check: Check[Any], case: Case | RuleCase) -> Row:
    """Run a check on one case."""
    excuse = case.excuse(check)
    if excuse:
        return Row(check.name, Status.SKIPPED, excuse)
    try:
        check(case)
    except NotApplicable as reason:
        return Row(check.name, Status.SKIPPED, str(reason))
    except CheckFailure as failure:
        caused = failure.__cause__ is not None
        message = with_lines(str(failure), failure) if caused else str(failure)
        return Row(check.name, Status.FAILED, message)
    except Exception as error:  # the layer's own code
        return Row(check.name, Status.FAILED, with_lines(raised(error), error))
    return Row(check.name, Status.PASSED)

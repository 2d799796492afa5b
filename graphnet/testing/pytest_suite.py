"""Pytest suite: a test class, a decorator and a function that run the checks under pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import pytest

from graphnet.sdk import Definition, Layer, Registry
from graphnet.testing.case import Case
from graphnet.testing.cases import Given, cases_for, varied_cases_for
from graphnet.testing.check import Check
from graphnet.testing.checks.all import CHECKS
from graphnet.testing.report import (
    FLOOR,
    Report,
    Row,
    Status,
    against,
    checks_for,
    enough,
    judge,
    judge_case,
    require_known,
    run_checks,
    unusable,
)
from graphnet.testing.rule_case import RuleCase
from graphnet.testing.sample import Sample
from graphnet.testing.samples import as_sample


class LayerTests:
    """Base of a test class with one test for each check. State `layer`, or `samples`, or both.

        class TestSwish(LayerTests):
            layer = Swish(beta=2.0)

    `layer` is a definition or a class: a layer, loss, kernel or optimizer. For a kernel, state the class, and
    samples of the layers that it replaces. `slow = True` adds the slow checks. `expected_failures` maps a
    check to the reason why it fails: that test is an xfail, and fails if the check passes.

    If the layer does not run, the test of the check `runs` fails and the others are skipped. One more test
    fails if fewer checks ran than a sound layer of its kind has.
    """

    layer: ClassVar[Definition | type[Definition] | None] = None
    samples: ClassVar[Given | None] = None
    slow: ClassVar[bool] = False
    expected_failures: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @classmethod
    def cases(cls) -> Sequence[Case | RuleCase]:
        """Return the cases; they are made once for a class."""
        if "_cases" not in vars(cls):
            cls._cases = _cases(cls.layer, cls.samples)
            cls._rows = {}
        return cls._cases

    _cases: ClassVar[Sequence[Case | RuleCase]]
    _rows: ClassVar[dict[str, Row]]

    @classmethod
    def _target(cls) -> type[Definition]:
        """The class that is checked."""
        if cls.layer is not None:
            return cls.layer if isinstance(cls.layer, type) else type(cls.layer)
        first = next(iter(cls.samples or ()), None)
        layer = first[0] if isinstance(first, tuple) else getattr(first, "layer", first)
        return type(layer) if isinstance(layer, Definition) else Layer

    @classmethod
    def _checks(cls) -> list[Check[Any]]:
        return [check for check in checks_for(cls._target()) if cls.slow or not check.slow]

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        if "check" in metafunc.fixturenames:
            require_known(cls.expected_failures, cls._target())
            found = cls._checks()
            metafunc.parametrize("check", found, ids=[check.name for check in found])

    def test_layer(self, check: Check[Any]) -> None:
        """Fail with the message of the check, or skip the test if the check does not apply."""
        _report(self._row(check), check.guards)

    def test_enough_checks_ran(self) -> None:
        """Fail if fewer checks run than the kind of the layer has at least."""
        cls = type(self)
        try:
            cases = cls.cases()
        except Exception:
            pytest.skip("the layer does not run: see the check `runs`")
        if all(case.untried for case in cases):
            pytest.skip(str(cases[0].untried))
        rows = [self._row(check) for check in cls._checks()]
        failed = [row.check for row in rows if row.status is Status.FAILED]
        if failed:
            pytest.skip(f"{failed[0]} has failed, which says more")
        for row in enough(cls._target(), cases, rows, cls.expected_failures.get(FLOOR)):
            _report(row, "")

    def _row(self, check: Check[Any]) -> Row:
        """Run a check, or return what it gave before in this process."""
        cls = type(self)
        try:
            cases = cls.cases()
        except Exception as error:  # the author's own code, or there is no sample
            row = unusable(cls._target(), error)
            if check.name == row.check:
                return row
            return Row(
                check.name, Status.SKIPPED, f"there is no sample: see the check `{row.check}`"
            )
        if check.name not in cls._rows:
            row = judge(check, cases)
            cls._rows[check.name] = against(row, cls.expected_failures.get(check.name))
        return cls._rows[check.name]


def _report(row: Row, guards: str) -> None:
    """Tell pytest the result of a check."""
    if row.status is Status.SKIPPED:
        pytest.skip(row.message)
    if row.status is Status.EXPECTED:
        pytest.xfail(row.message)
    if row.status is Status.FAILED:
        pytest.fail(f"{guards}\n{row.message}".lstrip(), pytrace=False)


def parametrize_with_checks(samples: Given, *, slow: bool = False) -> Callable[..., Any]:
    """Run the decorated test, which takes `case` and `check`, for each sample and check.

        @parametrize_with_checks([Swish(), Sample(Swish(beta=2.0), [(2, 3)])])
        def test_swish(case, check):
            check(case)

    If a check does not apply to a case, the test is skipped.
    """
    found: list[Any] = []
    for case in _cases(None, samples):
        assert isinstance(case, Case)
        for check in CHECKS:
            if slow or not check.slow:
                layer = type(case.layer).__name__
                found.append(pytest.param(case, _Reported(check), id=f"{layer}-{check.name}"))
    return pytest.mark.parametrize(("case", "check"), found)


def assert_checks_pass(
    target: Definition | type[Definition],
    samples: Given | None = None,
    *,
    registry: Registry | None = None,
    checks: Iterable[Check[Any]] | None = None,
    slow: bool = False,
    expected_failures: Mapping[str, str] = MappingProxyType({}),
) -> Report:
    """Run all checks in one test, for a suite of many layers; the failure lists the failed checks.

    If this machine cannot run the target, such as a kernel for CUDA, the test is skipped. If no check
    applies for another reason, it fails.

    Args:
        target: a layer, loss, kernel or optimizer: an instance, or a class, for which the kit makes
            instances.
        samples: the configurations and inputs to check; without them the kit draws some.
        registry: the definitions that the target may need; None takes the installed plugins.
        checks: the checks to run; None runs all that apply.
        slow: whether to run the slow checks too.
        expected_failures: check -> the reason why it fails. If it passes nevertheless, the test fails.

    Returns:
        The report of all checks.

        @pytest.mark.parametrize("name", registry.layers)
        def test_layer(name):
            assert_checks_pass(registry.layers[name].value, registry=registry)
    """
    report = run_checks(
        target,
        samples,
        registry=registry,
        checks=checks,
        slow=slow,
        expected_failures=expected_failures,
    )
    if report.failures:
        cls = target if isinstance(target, type) else type(target)
        guards = {check.name: f"{check.guards}\n" for check in checks_for(cls)}
        told = [f"{row.check}: {guards.get(row.check, '')}{row.message}" for row in report.failures]
        failed = f"{len(told)} of {len(report.rows)} checks failed for {report.layer}"
        pytest.fail("\n\n".join([failed, *told]), pytrace=False)
    if report.untried:
        pytest.skip(report.untried)
    if not report.ran:
        reasons = "; ".join(reason for reason in report.skipped if reason)
        pytest.fail(f"no check ran for {report.layer}: {reasons}", pytrace=False)
    return report


class _Reported:
    """A check that reports its result by pytest.skip and pytest.fail."""

    def __init__(self, check: Check[Any]) -> None:
        self.check = check

    def __call__(self, case: Case | RuleCase) -> None:
        row = judge_case(self.check, case)
        _report(row, f"{case}: {self.check.guards}")


def _cases(
    layer: Definition | type[Definition] | None, samples: Given | None
) -> Sequence[Case | RuleCase]:
    """Make the cases of a layer, or of all layers in the samples."""
    if layer is not None:
        return varied_cases_for(layer, samples)[0]
    if not samples:
        raise TypeError("state `layer = ...`, `samples = [...]`, or both")
    by_class: dict[type[Layer], list[Sample]] = {}
    for sample in map(as_sample, samples):
        if not isinstance(sample.layer, Layer):
            raise TypeError(
                "samples of several layers belong to a kernel: state `layer = ItsClass`"
            )
        by_class.setdefault(type(sample.layer), []).append(sample)
    return [case for cls, mine in by_class.items() for case in cases_for(cls, mine)]

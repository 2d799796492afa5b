"""Pytest suite: a test class, a decorator and a function that run the checks under pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import pytest

from graphnet.sdk import Definition, Layer, Registry
from graphnet.testing.case import Case
from graphnet.testing.check import Check
from graphnet.testing.checks.all import CHECKS
from graphnet.testing.report import (
    Given,
    Report,
    Status,
    cases_for,
    checks_for,
    judge,
    judge_case,
    run_checks,
)
from graphnet.testing.rule_case import RuleCase
from graphnet.testing.sample import Sample
from graphnet.testing.samples import as_sample


class LayerTests:
    """Base of a test class with one test for each check. State `layer`, or `samples`, or both.

        class TestSwish(LayerTests):
            layer = Swish(beta=2.0)

    `layer` is a definition or a class: a layer, loss, kernel or optimizer. For a kernel, state the class, and
    samples of the layers that it replaces. `slow = True` adds the slow checks.
    """

    layer: ClassVar[Definition | type[Definition] | None] = None
    samples: ClassVar[Given | None] = None
    slow: ClassVar[bool] = False

    @classmethod
    def cases(cls) -> Sequence[Case | RuleCase]:
        """Return the cases; they are made once for a class."""
        if "_cases" not in vars(cls):
            cls._cases = _cases(cls.layer, cls.samples)
        return cls._cases

    _cases: ClassVar[Sequence[Case | RuleCase]]

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        if "check" in metafunc.fixturenames:
            target = cls.layer if isinstance(cls.layer, type) else type(cls.layer)
            found = [check for check in checks_for(target) if cls.slow or not check.slow]
            metafunc.parametrize("check", found, ids=[check.name for check in found])

    def test_layer(self, check: Check[Any]) -> None:
        """Fail with the message of the check, or skip the test if the check does not apply."""
        row = judge(check, self.cases())
        if row.status is Status.SKIPPED:
            pytest.skip(row.message)
        if row.status is Status.FAILED:
            pytest.fail(f"{check.guards}\n{row.message}", pytrace=False)


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
) -> Report:
    """Run all checks in one test, for a suite of many layers; the failure lists the failed checks.

    If no check applies to a sample on this machine, the test is skipped.

    Args:
        target: a layer, loss, kernel, optimizer or schedule: an instance, or a class to draw samples of.
        samples: the configurations and inputs to check; without them the kit draws some.
        registry: the definitions that the target may need; None takes the installed plugins.
        checks: the checks to run; None runs all that apply.
        slow: whether to run the slow checks too.

    Returns:
        The report of all checks.

        @pytest.mark.parametrize("name", registry.layers)
        def test_layer(name):
            assert_checks_pass(registry.layers[name].value, registry=registry)
    """
    report = run_checks(target, samples, registry=registry, checks=checks, slow=slow)
    if report.failures:
        cls = target if isinstance(target, type) else type(target)
        guards = {check.name: check.guards for check in checks_for(cls)}
        told = [f"{row.check}: {guards[row.check]}\n{row.message}" for row in report.failures]
        failed = f"{len(told)} of {len(report.rows)} checks failed for {report.layer}"
        pytest.fail("\n\n".join([failed, *told]), pytrace=False)
    if all(row.status is Status.SKIPPED for row in report.rows):
        pytest.skip("; ".join(sorted({row.message for row in report.rows})))
    return report


class _Reported:
    """A check that reports its result by pytest.skip and pytest.fail."""

    def __init__(self, check: Check[Any]) -> None:
        self.check = check

    def __call__(self, case: Case | RuleCase) -> None:
        row = judge_case(self.check, case)
        if row.status is Status.SKIPPED:
            pytest.skip(row.message)
        if row.status is Status.FAILED:
            pytest.fail(f"{case}: {self.check.guards}\n{row.message}", pytrace=False)


def _cases(
    layer: Definition | type[Definition] | None, samples: Given | None
) -> Sequence[Case | RuleCase]:
    """Make the cases of a layer, or of all layers in the samples."""
    if layer is not None:
        return cases_for(layer, samples)
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

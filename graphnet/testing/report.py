"""Report: run all checks on all samples of a layer or optimizer, and report the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from torch import Tensor

from graphnet.errors import GraphnetError
from graphnet.sdk import (
    KINDS,
    Definition,
    Entry,
    Kernel,
    Layer,
    MultiTensorKernel,
    Optimizer,
    Plugin,
    Registry,
    default_registry,
)
from graphnet.testing.author import raised
from graphnet.testing.blocks import in_plain_layout
from graphnet.testing.case import Case
from graphnet.testing.check import Check
from graphnet.testing.checks.all import CHECKS
from graphnet.testing.checks.purity import runs
from graphnet.testing.checks.rules import RULE_CHECKS, rule_runs
from graphnet.testing.expression import expression_for
from graphnet.testing.outcome import CheckFailure, NotApplicable
from graphnet.testing.rule_case import RuleCase, rule_cases
from graphnet.testing.sample import Sample
from graphnet.testing.samples import as_sample, samples_for, samples_of

Given = Sequence[Any]
"""Samples: Sample objects, layers or (layer, inputs); for optimizers and their kernels, optimizers."""


class Status(StrEnum):
    """The result of a check.

    >>> [status.value for status in Status]
    ['passed', 'failed', 'skipped']
    """

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


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

    >>> from graphnet.builtin import ReLU
    >>> report = run_checks(ReLU())
    >>> report.failures
    ()
    """

    layer: str
    rows: tuple[Row, ...]

    @property
    def failures(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.status is Status.FAILED)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures


def run_checks(
    target: Definition | type[Definition],
    samples: Given | None = None,
    *,
    registry: Registry | None = None,
    checks: Iterable[Check[Any]] | None = None,
    slow: bool = False,
    progress: Callable[[Check[Any]], None] | None = None,
) -> Report:
    """Run the checks on a layer, loss, kernel or optimizer.

    Args:
        target: a definition, or a class of definitions.
        samples: the samples; None takes the author's `samples`, or generates some.
        registry: the definitions that may be used; None takes those of the installed plugins.
        checks: the checks; None takes all that apply to the class.
        slow: whether to run slow checks too.
        progress: called with each check before it runs.

    >>> from graphnet.builtin import ReLU
    >>> run_checks(ReLU(), checks=checks_for(ReLU)[:3]).failures
    ()
    """
    cls = target if isinstance(target, type) else type(target)
    name = (registry or default_registry()).name_of(cls)
    if issubclass(cls, MultiTensorKernel):
        name += " (kernel)"  # a kernel may have the name of its rule
    try:
        cases = cases_for(target, samples, registry=registry)
    except GraphnetError as error:
        return _unusable(name, cls, str(error))
    except Exception as error:  # the author's own code: `samples`, `match`, a pattern
        return _unusable(name, cls, f"the samples cannot be made: {raised(error)}")
    rows = []
    for check in checks_for(cls) if checks is None else checks:
        if slow or not check.slow:
            if progress is not None:
                progress(check)
            rows.append(judge(check, cases))
    return Report(name, tuple(rows))


def _unusable(name: str, cls: type, message: str) -> Report:
    """Make the report for a target without cases: its first check has failed."""
    return Report(
        name, (Row((rule_runs if _of_rules(cls) else runs).name, Status.FAILED, message),)
    )


CHECKED_KINDS = tuple(
    kind
    for kind in KINDS.values()
    if any(issubclass(base, (Layer, Optimizer, MultiTensorKernel)) for base in kind.bases)
)
"""The kinds of plugin that the kit has checks for."""


def checked_kinds() -> str:
    """Return the kinds that the kit has checks for, in words.

    >>> checked_kinds()
    'layer, loss, kernel or optimizer'
    """
    *most, last = (kind.singular for kind in CHECKED_KINDS)
    return f"{', '.join(most)} or {last}"


def checks_for(cls: type) -> tuple[Check[Any], ...]:
    """Return the checks that apply to a class.

    >>> from graphnet.builtin import SGD, ReLU
    >>> {check.name for check in checks_for(SGD)} < {check.name for check in checks_for(ReLU)}
    False
    """
    return RULE_CHECKS if _of_rules(cls) else CHECKS


def _of_rules(cls: type) -> bool:
    return issubclass(cls, (Optimizer, MultiTensorKernel))


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
    return Row(check.name, Status.SKIPPED, "; ".join(reason for reason in reasons if reason))


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
        return Row(check.name, Status.FAILED, str(failure))
    except Exception as error:  # the layer's own code
        return Row(check.name, Status.FAILED, raised(error))
    return Row(check.name, Status.PASSED)


def cases_for(
    target: Definition | type[Definition],
    samples: Given | None = None,
    *,
    registry: Registry | None = None,
) -> Sequence[Case | RuleCase]:
    """Make the cases of a target.

    Raises NoSample if no sample can be made, CheckFailure if a kernel matches none of the samples.

    >>> from graphnet.builtin import ReLU
    >>> from graphnet.testing import Sample
    >>> [case.name for case in cases_for(ReLU(), [Sample(ReLU(), [(2, 3)])])]
    ['relu']
    """
    cls = target if isinstance(target, type) else type(target)
    if _of_rules(cls):
        return rule_cases(target, samples)
    if not issubclass(cls, Layer):
        raise CheckFailure(
            f"expected a {checked_kinds()}, found {cls.__name__}: the kit has no checks for it"
        )
    registry = registry or default_registry()
    if samples is not None:
        given = tuple(as_sample(sample) for sample in samples)
    elif isinstance(target, Layer) and not isinstance(target, Kernel):
        given = tuple(samples_of(target)) or (as_sample(target),)
    else:
        given = samples_for(cls, registry)
    name = registry.name_of(cls)
    if registry.entry_of(cls) is None:
        name, registry = f"check/{cls.__name__.lower()}", _with(registry, cls)
    found = tuple(_cases(cls, name, given, registry))
    if issubclass(cls, Kernel) and not found:
        raise CheckFailure(
            f"expected {cls.__name__}.match to accept one of {len(given)} samples, found that it "
            f"returns None for all. Give a sample that it is made for."
        )
    return tuple(replace(case, siblings=found) for case in found)


def _cases(
    cls: type[Layer], name: str, samples: Iterable[Sample], registry: Registry
) -> Iterator[Case]:
    for sample in samples:
        inputs = tuple(x if isinstance(x, Tensor) else tuple(x) for x in sample.inputs)
        if not issubclass(cls, Kernel):
            if not isinstance(sample.layer, Layer):
                raise CheckFailure(
                    f"expected one layer in a sample of {cls.__name__}, found a tuple"
                )
            yield Case(sample.layer, name, inputs, registry, raises=sample.raises, skip=sample.skip)
            continue
        layers = sample.layer if isinstance(sample.layer, tuple) else (sample.layer,)
        expression = expression_for(cls, layers)
        specs = Case(layers[0], name, inputs, registry).input_specs()
        kernel = expression.match(cls, specs)
        if kernel is not None:
            kernel = in_plain_layout(kernel)
            yield Case(kernel, name, inputs, registry, expression=expression, skip=sample.skip)


def _with(registry: Registry, cls: type[Layer]) -> Registry:
    """Return the registry with one more layer, which no plugin has registered."""
    name = f"check/{cls.__name__.lower()}"
    kind = next(kind.name for kind in KINDS.values() if kind.fits(cls))
    entry = Entry(name, cls, 1, Plugin("check", "the layer under test", "0"))
    changed: Any = {kind: MappingProxyType({**registry.of_kind(kind), name: entry})}
    return replace(registry, **changed)

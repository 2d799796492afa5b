"""The kit bites: each wrong layer fails on the check that names its fault, and on that one first."""

from __future__ import annotations

import pytest

from graphnet.sdk import Layer
from graphnet.testing import CHECKS, Sample, Status, cases_for, run_checks
from graphnet.testing.report import judge_case
from tests.support.broken import BROKEN, RIGHT


@pytest.mark.parametrize(
    ("check", "sample", "layer", "says"), BROKEN, ids=[layer.__name__ for _, _, layer, _ in BROKEN]
)
def test_wrong_layer_fails_first_on_the_check_that_names_its_fault(
    check: str, sample: Sample, layer: type[Layer], says: str
) -> None:
    upto = [c.name for c in CHECKS].index(check) + 1
    report = run_checks(layer, [sample], checks=CHECKS[:upto])
    assert [row.check for row in report.failures] == [check]
    assert says in report.failures[0].message


@pytest.mark.parametrize("layer", RIGHT, ids=lambda layer: type(layer).__name__)
def test_right_layer_passes(layer: Layer) -> None:
    """The layers that the wrong ones are made from pass: what bites is the fault alone."""
    assert run_checks(layer).failures == ()


def test_every_check_bites() -> None:
    """For each check there is a layer that fails on it first; the exceptions say why they have none."""
    bitten = {check for check, _, _, _ in BROKEN}
    unbitten = {
        "accumulates",  # joins parts that other checks test one by one
        "cuda",  # needs a device
        "executors",  # compiles the plan of `accumulates`
        "inductor",  # compares compilers
    }
    assert {check.name for check in CHECKS} - bitten == unbitten


def test_at_least_forty_wrong_layers_are_tried() -> None:
    assert len(BROKEN) >= 40
    assert len({layer for _, _, layer, _ in BROKEN}) == len(BROKEN)


def test_layer_that_does_not_run_is_reported_once() -> None:
    (_, sample, _, _) = next(entry for entry in BROKEN if entry[0] == "runs")
    assert isinstance(sample.layer, Layer)
    (case,) = cases_for(sample.layer, [sample])
    rows = [judge_case(check, case) for check in CHECKS]
    assert [row.status for row in rows].count(Status.FAILED) == 1

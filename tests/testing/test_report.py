"""What a report says: how much was tried, what was not and why, and what one may rely on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field

from graphnet.builtin import SGD, Conv2d, ReLU
from graphnet.errors import GraphError, UnknownNameError
from graphnet.sdk import Layer
from graphnet.testing import (
    CHECKS,
    FLOORS,
    Sample,
    Status,
    assert_checks_pass,
    run_checks,
)
from graphnet.testing.cases import varied_cases_for
from graphnet.testing.level import levels_of
from tests.support.broken import CountedTwice, Twice

IMAGE = (2, 4, 6, 6)
FAST = [check for check in CHECKS if check.name not in ("compiles", "executors", "inductor")]


class Choosing(Layer):
    """x times a number that every field changes. x: any shape with at least one axis.

    >>> Choosing().forward(torch.tensor([1.0]))
    tensor([4.])
    """

    flag: bool = True
    mode: Literal["one", "two", "three"] = "one"
    times: Annotated[int, Field(ge=1, le=4)] = 2
    pair: tuple[int, int] = (1, 1)
    extra: float | None = None
    note: str = "text"

    @property
    def factor(self) -> float:
        modes = {"one": 2.0, "two": 3.0, "three": 5.0}
        flag = 2.0 if self.flag else 7.0
        pair = self.pair[0] / self.pair[1]
        return modes[self.mode] * flag * self.times / 2 * pair + (self.extra or 0.0)

    def forward(self, x):
        return x * self.factor

    def backward(self, grad_y):
        return grad_y * self.factor


@pytest.mark.parametrize("samples", [None, [Sample(Choosing(), [(2, 3)])]])
def test_bounded_fields_are_varied_also_where_the_author_gave_samples(samples: Any) -> None:
    cases, fields = varied_cases_for(Choosing, samples)
    tried = {name: set(one.values) for name, one in fields.items()}
    assert tried["flag"] == {True, False}
    assert tried["mode"] == {"one", "two", "three"}
    assert len(tried["times"]) >= 2
    assert tried["times"] <= {1, 2, 3, 4}
    assert {(1, 1), (2, 1), (1, 2)} <= tried["pair"]
    assert None in tried["extra"]
    assert len(tried["extra"]) >= 2
    assert fields["note"].only_default
    assert [name for name, one in fields.items() if one.only_default] == ["note"]
    assert len(cases) <= 6  # several fields change in one sample


@pytest.mark.parametrize(
    "wrong",
    [
        lambda layer: layer.mode == "three",
        lambda layer: not layer.flag,
        lambda layer: layer.times == 3,
        lambda layer: layer.pair[1] == 2,
        lambda layer: layer.extra is not None,
    ],
)
def test_fault_behind_one_value_of_a_field_is_found(wrong: Any) -> None:
    class Wrong(Choosing):
        """x times a number, with a wrong sign for one value of a field. x: any shape."""

        def backward(self, grad_y):
            return -grad_y * self.factor if wrong(self) else grad_y * self.factor

    report = run_checks(Wrong, [Sample(Wrong(), [(2, 3)])], checks=FAST)
    assert report.failures[0].check == "gradient_numerical"


def test_report_counts_checks_and_gives_reasons_and_values() -> None:
    report = run_checks(Conv2d(out_channels=2, kernel_size=3, padding=1), checks=FAST)
    assert report.ok
    skipped = sum(map(len, report.skipped.values()))
    assert report.ran + skipped == len(report.rows)
    assert "random_replay" in report.skipped["the layer is not random"]
    assert report.only_defaults == ()
    text = report.details()
    assert f"{report.ran} checks ran, {skipped} were skipped" in text
    assert "skipped, the layer is not random: random_replay" in text
    assert "field bias: tried True, False" in text


def test_value_that_a_layer_refuses_is_said() -> None:
    class Refusing(Layer):
        """x, if size is 0. x: any shape."""

        size: Annotated[int, Field(ge=0)] = 0

        def forward(self, x):
            if self.size:
                raise GraphError("expected no size")
            return x.clone()

        def backward(self, grad_y):
            return grad_y

    report = run_checks(Refusing, [Sample(Refusing(), [(2, 3)])], checks=FAST)
    assert report.ok
    assert report.only_defaults == ("size",)
    assert "field size: only its default 0 was tried; refused: 1, 2" in report.details()


class Labels(Layer):
    """x times the label's weight, 0 where the label does not count. label: int64, 0 to 2, or `ignored`.

    `ignored` may be any number: only the labels say which one fits.
    """

    nondifferentiable = ("label",)
    ignored: int = -100
    scale: float = 1.0

    def weights(self, x, label):
        counts = label != self.ignored
        table = torch.arange(1, 4, dtype=x.dtype, device=x.device) * self.scale
        return table[label.masked_fill(~counts, 0)] * counts

    def forward(self, x, label):
        return x * self.weights(x, label)

    def backward(self, grad_y, label):
        return grad_y * self.weights(grad_y, label), None


def test_values_that_do_not_fit_the_integers_of_a_sample_are_refused() -> None:
    report = run_checks(Labels, [Sample(Labels(), [(3,), torch.tensor([1, -100, 2])])])
    assert report.ok, report
    assert report.only_defaults == ("ignored",)
    assert report.fields["ignored"].refused[:2] == (-99, -98)


def test_field_of_which_the_author_states_several_values_is_left_as_he_states_it() -> None:
    given = [Sample(Choosing(times=n, mode=mode), [(2,)]) for n, mode in ((1, "one"), (4, "three"))]
    _, fields = varied_cases_for(Choosing, given)
    assert fields["times"].values == (1, 4)
    assert set(fields["mode"].values) == {"one", "two", "three"}  # a choice is always tried


def test_optimizers_fields_are_varied_around_a_given_rule() -> None:
    _, fields = varied_cases_for(SGD(lr=0.1))
    assert {name for name, one in fields.items() if one.only_default} == set()
    assert set(fields["nesterov"].values) == {False, True}


def test_every_kind_has_a_floor_and_fewer_checks_are_a_failure() -> None:
    assert {floor.kind for floor in FLOORS} >= {"layer", "loss", "kernel", "optimizer"}
    skip = {check.name: "no reason" for check in CHECKS[12:]}
    report = run_checks(ReLU, [Sample(ReLU(), [IMAGE], skip=skip)])
    (failure,) = report.failures
    assert failure.check == "enough_checks"
    assert not report.ok
    assert "checks to run on a layer, found" in failure.message
    assert "no reason" in failure.message


def test_a_sample_that_must_be_refused_is_not_enough() -> None:
    class Refuses(Twice):
        """2 x, for no input at all. x: none."""

        def forward(self, x):
            raise GraphError("no")

    report = run_checks(Refuses, [Sample(Refuses(), [IMAGE], raises=GraphError)])
    assert [row.check for row in report.failures] == ["enough_checks"]


def test_expected_failure_passes_and_one_that_passes_fails() -> None:
    wrong = ["gradient_numerical", "gradient_autograd", "gradient_at_kinks", "batch_of_one"]
    reasons = dict.fromkeys([*wrong, "large_inputs"], "twice on purpose")
    given = [Sample(CountedTwice(), [(2, 3)])]
    report = assert_checks_pass(CountedTwice, given, expected_failures=reasons)
    rows = {row.check: row for row in report.rows}
    assert rows["gradient_numerical"].status is Status.EXPECTED
    assert rows["gradient_numerical"].message == "twice on purpose"
    (failure,) = run_checks(Twice, expected_failures={"runs": "none"}, checks=CHECKS[:2]).failures
    assert failure.check == "runs"
    assert "it passes, but expected_failures says that it fails: none" in failure.message


def test_unknown_check_is_an_error_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'gradient_numerical'"):
        run_checks(ReLU, expected_failures={"gradient_numeric": "because"})


def test_levels_are_computed_from_the_checks() -> None:
    report = run_checks(Choosing, [Sample(Choosing(), [(2, 3)])])
    levels = {level.name: level for level in report.levels}
    assert levels["conforms"].reached
    assert levels["differentiates under reference and eager"].reached
    assert levels["documented with examples"].reached
    if not torch.cuda.is_available():
        assert str(levels["equal on the device"]) == (
            "equal on the device: no, there is no CUDA device"
        )
    wrong = run_checks(CountedTwice, [Sample(CountedTwice(), [(2, 3)])], checks=FAST)
    levels = {level.name: level for level in wrong.levels}
    assert not levels["conforms"].reached
    assert "gradient_numerical" in levels["conforms"].why
    assert "gradient_numerical" in levels["differentiates under every executor"].why


def test_every_executor_is_reached_only_with_the_compiled_one() -> None:
    passed = dict.fromkeys(("gradient_numerical", "accumulates", "executors"), ("passed", ""))
    names = [level.name for level in levels_of(passed, ok=True) if level.reached]
    assert names == ["conforms", "differentiates under every executor"]


def test_advice_beside_autograd_says_what_central_differences_say() -> None:
    (wrong,) = (
        row
        for row in run_checks(CountedTwice, [Sample(CountedTwice(), [(2, 3)])], checks=FAST).rows
        if row.check == "gradient_autograd"
    )
    assert "Central differences do not agree with it either" in wrong.message

    class Narrow(Twice):
        """2 x, whose backward rounds to float32. x: any shape."""

        def backward(self, grad_y):
            return (2 * grad_y).float().to(grad_y.dtype)

    narrow = run_checks(Narrow, [Sample(Narrow(), [(2, 3)])], checks=FAST).failures[0]
    assert narrow.check == "gradient_autograd"
    assert "Central differences agree with it to 5 digits" in narrow.message

"""The kit accepts right layers of many kinds, and the samples that authors may give."""

from __future__ import annotations

import pytest
import torch

from graphnet.errors import GraphError
from graphnet.sdk import Layer, load_registry
from graphnet.testing import Sample, Status, cases_for, run_checks
from tests.models import Acme
from tests.testing.right import RIGHT, Embedding, Linear, MaxPool

REGISTRY = load_registry(plugins=[Acme()], entry_points=False)


@pytest.mark.parametrize(
    ("layer", "samples"), RIGHT, ids=[f"{cls.__name__}{'-given' * bool(s)}" for cls, s in RIGHT]
)
def test_right_layer_passes(layer: type[Layer], samples: list[Sample] | None) -> None:
    report = run_checks(layer, samples)
    assert report.failures == ()
    assert sum(row.status is Status.PASSED for row in report.rows) >= 25


@pytest.mark.parametrize("name", [n for n in REGISTRY.layers if n.startswith("acme/")])
def test_layers_of_the_other_tests_pass(name: str) -> None:
    report = run_checks(REGISTRY.layers[name].value, registry=REGISTRY)
    assert [row for row in report.failures if row.check != "docstring"] == []


def test_samples_may_be_tensors_layers_and_pairs() -> None:
    linear = Linear(out_features=2)
    for given in (
        linear,
        (linear, [(3, 5)]),
        (linear, [torch.rand(3, 5)]),
        Sample(linear, [(3, 5)]),
    ):
        (case,) = cases_for(Linear, [given])
        assert case.usable
        assert case.arguments()["weight"].dtype == torch.float64


def test_given_tensors_are_what_forward_gets_and_are_left_alone() -> None:
    index = torch.tensor([3, 1])
    (case,) = cases_for(Embedding, [(Embedding(), [index])])
    given = case.arguments()["index"]
    assert given.tolist() == [3, 1]
    assert given.data_ptr() != index.data_ptr()


def test_generated_samples_cover_optional_flags_and_any_number_of_inputs() -> None:
    assert [case.layer.configuration()["bias"] for case in cases_for(Linear)] == [True, False]
    image, wider = (2, 4, 6, 6), (2, 5, 6, 6)
    add, concat = (cases_for(REGISTRY.layers[name].value) for name in ("add", "concat"))
    assert [case.inputs for case in add] == [(image,), (image,) * 3]
    assert [case.inputs for case in concat] == [(image,), (image,) * 3, (image, wider)]


def test_layer_that_takes_no_generated_input_asks_for_samples() -> None:
    class Picky(Layer):
        """x, if it has 7 axes."""

        def forward(self, x):
            if x.ndim != 7:
                raise GraphError("expected 7 axes")
            return x

    (row,) = run_checks(Picky).rows
    assert (row.check, row.status) == ("runs", Status.FAILED)
    assert "no sample could be made for Picky" in row.message
    assert "Sample(layer, inputs)" in row.message


def test_declared_error_is_checked_and_nothing_else() -> None:
    sample = Sample(MaxPool(), [(2, 4, 5, 6)], raises=GraphError)
    rows = {row.check: row for row in run_checks(MaxPool, [sample]).rows}
    assert rows.pop("declared_errors").status is Status.PASSED
    assert {row.status for row in rows.values()} == {Status.SKIPPED}


def test_excused_check_is_skipped_with_its_reason() -> None:
    layer, samples = RIGHT[-1]
    rows = {row.check: row for row in run_checks(layer, samples).rows}
    assert rows["gradient_numerical"].status is Status.SKIPPED
    assert "straight-through" in rows["gradient_numerical"].message
    assert rows["gradient_linear"].status is Status.PASSED


def test_same_seed_gives_the_same_tensors_away_from_kinks() -> None:
    (case,) = cases_for(Linear, [(Linear(out_features=2), [(40, 50)])])
    first, second, other = (case.arguments(seed=seed)["x"] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    distance = (2 * first - (2 * first).round()).abs()
    assert float(distance.min()) > 0.02
    assert float(first.std()) == pytest.approx(4 / 12**0.5, rel=0.05)  # uniform from -2 to 2


def test_running_checks_leaves_the_registry_alone() -> None:
    before = dict(REGISTRY.layers)
    run_checks(Linear, registry=REGISTRY)
    assert dict(REGISTRY.layers) == before

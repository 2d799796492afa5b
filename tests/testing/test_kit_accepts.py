"""The kit accepts right layers of many kinds, and the samples that authors may give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor

from graphnet.builtin import SGD, ReLU
from graphnet.errors import GraphError
from graphnet.sdk import Kernel, Layer, load_registry
from graphnet.testing import CHECKS, Sample, Status, cases_for, run_checks
from graphnet.testing.author import where
from tests.support.models import Acme
from tests.support.right import RIGHT, Embedding, Linear, MaxPool

REGISTRY = load_registry(plugins=[Acme()], entry_points=False)
SOURCE = Path(__file__).read_text()


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
    assert "Picky() on 2x4x6x6: GraphError: expected 7 axes" in row.message
    assert f"{__file__}:{line_of('expected 7 axes')}, in forward" in row.message


def line_of(text: str) -> int:
    """The first line of this file that raises with this text, or holds it in a comment."""
    return next(i for i, line in enumerate(SOURCE.splitlines(), 1) if text in line)


class Misspelled(Layer):
    """x, but for a word that no tensor knows."""

    def forward(self, x):
        return x.reshape(x.sahpe)  # misspelled

    def backward(self, grad_y):
        return grad_y


class MisspelledForImages(Misspelled):
    """x, but for a word that no tensor knows, on images only."""

    def forward(self, x):
        return x if x.ndim != 4 else x.sahpe  # on images


class Undefined(Layer):
    """x, by a name that is not defined."""

    def forward(self, x):
        return undefined + x  # noqa: F821  # not defined


class Divides(Layer):
    """x, never: it divides by zero."""

    def forward(self, x):
        return x / (1 // 0)  # by zero


class Declares(Layer):
    """x, with parameters that cannot be made."""

    def parameters(self, specs):
        raise ValueError("cannot make parameters")

    def forward(self, x, weight):
        return x * weight


@pytest.mark.parametrize(
    ("layer", "line", "error", "method"),
    [
        (
            Misspelled,
            "# misspelled",
            "AttributeError: 'Tensor' object has no attribute 'sahpe'",
            "forward",
        ),
        (MisspelledForImages, "# on images", "AttributeError: 'Tensor' object has no", "forward"),
        (Undefined, "# not defined", "NameError: name 'undefined' is not defined", "forward"),
        (Divides, "# by zero", "ZeroDivisionError: integer division or modulo by zero", "forward"),
        (Declares, "cannot make", "ValueError: cannot make parameters", "parameters"),
    ],
)
@pytest.mark.parametrize("given", ["class", "layer", "samples", "layers"])
def test_what_the_authors_code_raises_is_shown_with_its_line_and_its_sample(
    layer: type[Layer], line: str, error: str, method: str, given: str
) -> None:
    samples = {"samples": [Sample(layer(), [(2, 4, 6, 6)])], "layers": [layer()]}.get(given)
    report = run_checks(layer() if given == "layer" else layer, samples)
    row = report.failures[0]
    assert row.check == "runs"
    assert error in row.message
    assert f"{__file__}:{line_of(line)}, in {method}" in row.message
    assert f"{layer.__name__}() on 2x4x6x6" in row.message


@pytest.mark.parametrize("name", ["relu", "conv2d", "aten/relu", "mse"])
def test_an_error_in_a_built_in_layer_is_shown_with_its_line(name: str) -> None:
    found = REGISTRY.layers | REGISTRY.losses | REGISTRY.kernels
    forward = found[name].value.forward
    with pytest.raises(Exception, match=".") as raised:
        forward(object(), *[object()] * (forward.__code__.co_argcount - 1))
    assert re.search(r"graphnet/builtin/.*\.py:\d+, in ", where(raised.value))


def test_errors_of_samples_and_of_match_are_shown() -> None:
    class Samples(Layer):
        """x, with samples that cannot be made."""

        @classmethod
        def samples(cls):
            raise KeyError("no samples")  # of samples

        def forward(self, x):
            return x

    class Match(Kernel):
        """relu, with a match that fails."""

        replaces: ClassVar[str] = "relu(x)"

        @classmethod
        def match(cls, site):
            return site.lyaer  # of match

        def forward(self, x):
            return x.relu()

    for cls, line, error in (
        (Samples, "# of samples", "KeyError: 'no samples'"),
        (Match, "# of match", "AttributeError: 'Site' object has no attribute 'lyaer'"),
    ):
        (row,) = run_checks(cls).rows
        assert row.status is Status.FAILED
        assert error in row.message
        assert f"{__file__}:{line_of(line)}, in " in row.message


def test_refused_configurations_are_shown_where_none_is_left() -> None:
    class Refuses(Layer):
        """x, for a size that the kit does not try."""

        size: Annotated[int, Field(gt=1000)]

        def forward(self, x):
            return x

    (row,) = run_checks(Refuses).rows
    assert "Refuses(size=2): DescriptionError: size: " in row.message


def test_compiled_functions_of_the_caller_stay_compiled() -> None:
    count = []

    def backend(module: Any, examples: Any) -> Any:
        count.append(1)
        return module.forward

    def double(x: Tensor) -> Tensor:
        return x * 2

    compiled = torch.compile(double, backend=backend)
    compiled(torch.ones(3))
    assert len(count) == 1
    for target in (ReLU, SGD):
        assert run_checks(target).ok
    compiled(torch.ones(3))
    assert len(count) == 1


def test_more_cases_are_compiled_than_torch_keeps_versions_of_one_function() -> None:
    limit = torch._dynamo.config.recompile_limit
    samples = [Sample(ReLU(), [(2, n + 1)]) for n in range(limit + 4)]
    checks = [check for check in CHECKS if check.name == "compiles"]
    assert run_checks(ReLU, samples, checks=checks).ok


def test_declared_error_is_checked_and_nothing_else() -> None:
    sample = Sample(MaxPool(), [(2, 4, 5, 6)], raises=GraphError)
    rows = {row.check: row for row in run_checks(MaxPool, [sample], checks=CHECKS).rows}
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

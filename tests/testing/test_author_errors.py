"""What the author's code raises, and what it declares and does not do: shown once, with its lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import graphnet as gn
from graphnet.sdk import Kernel, Layer
from graphnet.testing import Sample, Status, assert_checks_pass, run_checks

IMAGE = (2, 4, 6, 6)


class Inner(Layer):
    """x, by a function that raises in backward, inference or update. x: any shape."""

    def forward(self, x):
        return x.clone()

    def backward(self, grad_y):
        return self.helper(grad_y)  # calls what raises

    def helper(self, grad):
        return grad.misspelled  # raises


class InInference(Layer):
    """x, with an inference that raises. x: any shape."""

    def forward(self, x):
        return x.clone()

    def inference(self, x):
        raise RuntimeError("no inference")

    def backward(self, grad_y):
        return grad_y


class InUpdate(gn.Optimizer):
    """p, with an update that raises."""

    def update(self, parameter, grad, lr):
        raise RuntimeError("no update")


class InMatch(Kernel):
    """relu, with a match that raises."""

    replaces: ClassVar[str] = "relu(x)"

    @classmethod
    def match(cls, site):
        raise RuntimeError("no match")

    def forward(self, x):
        return x.relu()


class ForgetsASave(Layer):
    """2 x. x: any shape."""

    saves = ("gate", "other")

    def forward(self, x):
        return 2 * x, x.sigmoid()

    def backward(self, grad_y, gate, other):
        return 2 * grad_y


class ForgetsAState(Layer):
    """2 x. x: any shape; count: ()."""

    updates = ("count",)

    def states(self, specs):
        return {"count": gn.sdk.StateSpec((), gn.Constant(0.0))}

    def forward(self, x, count):
        return 2 * x

    def backward(self, grad_y):
        return 2 * grad_y


class Misspells(Layer):
    """x * weight. x: any shape."""

    def parameters(self, specs):
        return {"wieght": gn.ParameterSpec((1,), gn.Constant(1.0))}

    def forward(self, x, weight):
        return x * weight

    def backward(self, grad_y, x, weight):
        return grad_y * weight, (grad_y * x).sum().view(1)


@pytest.mark.parametrize(
    ("target", "method", "line"),
    [
        (Inner, "backward", "    return self.helper(grad_y)  # calls what raises"),
        (Inner, "helper", "    return grad.misspelled  # raises"),
        (InInference, "inference", '    raise RuntimeError("no inference")'),
        (InUpdate, "update", '    raise RuntimeError("no update")'),
        (InMatch, "match", '    raise RuntimeError("no match")'),
    ],
)
def test_traceback_of_the_authors_lines_is_shown_once(target: Any, method: str, line: str) -> None:
    report = run_checks(target)
    (failure,) = report.failures
    assert f'  File "{__file__}", line ' in failure.message
    assert f", in {method}\n{line}" in failure.message
    assert failure.message.count(line) == 1
    assert "graphnet/testing" not in failure.message
    assert {row.status for row in report.rows if row is not failure} <= {Status.SKIPPED}


@pytest.mark.parametrize("given", [None, "samples"])
@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (ForgetsASave, "Missing: 'other', which `saves` names"),
        (ForgetsAState, "Missing: 'count', which `updates` names"),
        (
            Misspells,
            "states 'wieght', which forward does not name: it takes x, weight. Did you mean",
        ),
    ],
)
def test_declaration_that_forward_does_not_keep_is_named(
    layer: type[Layer], says: str, given: str | None
) -> None:
    samples = None if given is None else [Sample(layer(), [IMAGE])]
    (failure,) = run_checks(layer, samples).failures
    assert says in failure.message
    assert "no sample could be made" not in failure.message


def test_an_error_that_several_checks_meet_shows_its_lines_once() -> None:
    class OneBatch(Layer):
        """x, for batches of two only. x: (N, ...)."""

        def forward(self, x):
            if x.shape[0] not in (2,):
                raise RuntimeError("only two")
            return x.clone()

        def backward(self, grad_y):
            return grad_y

    failures = run_checks(OneBatch, [Sample(OneBatch(), [(2, 4)])]).failures
    assert len(failures) > 1
    assert sum('raise RuntimeError("only two")' in row.message for row in failures) == 1
    assert f"(at the lines that {failures[0].check} shows)" in failures[1].message


UNUSABLE = """
from graphnet.sdk import Layer
from graphnet.testing import LayerTests

class Raises(Layer):
    '''x. x: any shape.'''
    def forward(self, x):
        return x.misspelled

class TestRaises(LayerTests):
    layer = Raises()

class Backward(Layer):
    '''x. x: any shape.'''
    def forward(self, x):
        return x.clone()
    def backward(self, grad_y):
        return grad_y.misspelled

class TestBackward(LayerTests):
    layer = Backward()
    expected_failures = {"gradient_linear": "it does not run"}
"""


def test_under_pytest_a_layer_that_does_not_run_fails_once(tmp_path: Path) -> None:
    (tmp_path / "test_unusable.py").write_text(UNUSABLE)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-c", "/dev/null"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 2, done.stdout
    assert all("test_layer[runs]" in line for line in failed)
    assert not [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    assert done.stdout.count("return x.misspelled") == 1
    assert "see the check `runs`" in done.stdout


def test_nothing_that_ran_is_a_failure_unless_the_machine_cannot() -> None:
    sample = Sample(gn.builtin.ReLU(), [IMAGE], skip=dict.fromkeys(_names(), "no"))
    with pytest.raises(pytest.fail.Exception, match="expected at least"):
        assert_checks_pass(gn.builtin.ReLU, [sample])


def _names() -> list[str]:
    from graphnet.testing import CHECKS

    return [check.name for check in CHECKS]


def test_kernel_for_cuda_alone_is_skipped_where_there_is_none() -> None:
    class OnCuda(Kernel):
        """relu, on CUDA."""

        replaces: ClassVar[str] = "relu(x)"

        @classmethod
        def match(cls, site):
            return cls() if site.device.type == "cuda" else None

        def forward(self, x):
            return x.relu()

        def backward(self, grad_y, y):
            return grad_y.masked_fill(y <= 0, 0)

    if torch.cuda.is_available():
        pytest.skip("it runs on this machine's GPU")
    with pytest.raises(pytest.skip.Exception, match="there is no CUDA device"):
        assert_checks_pass(OnCuda)


EXECUTED = """
class Thrice(gn.Layer):
    '''3 x. x: any shape.

    >>> Thrice().forward(torch.ones(1))
    tensor([3.])
    '''

    def forward(self, x):
        return 3 * x

    def backward(self, grad_y):
        return 3 * grad_y
"""


def test_a_layer_of_no_imported_module_has_its_examples_run() -> None:
    names: dict[str, Any] = {"gn": gn, "__name__": "not_imported"}
    exec(EXECUTED, names)
    report = run_checks(names["Thrice"]())
    assert report.failures == ()
    (status,) = [row.status for row in report.rows if row.check == "examples"]
    assert status is Status.PASSED

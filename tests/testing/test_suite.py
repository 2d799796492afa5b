"""The kit under pytest: what an author's five lines collect, and how faults are shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graphnet.testing import CHECKS, assert_checks_pass, run_checks
from tests.support.broken import CountedTwice
from tests.support.models import Swish

RIGHT = """
from graphnet.testing import LayerTests
from tests.support.models import Swish

class TestSwish(LayerTests):
    layer = Swish(beta=2.0)
"""
WRONG = """
from graphnet.testing import LayerTests
from tests.support.broken import CountedTwice

class TestTwice(LayerTests):
    samples = [(CountedTwice(), [(2, 3)])]
"""
DECORATED = """
from graphnet.testing import Sample, parametrize_with_checks
from tests.support.models import Swish, Scale

@parametrize_with_checks([Swish(), Sample(Swish(beta=2.0), [(2, 3)]), (Scale(), [(2, 3)])])
def test_layers(case, check):
    check(case)
"""
FAST = sum(not check.slow for check in CHECKS)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What pytest prints of each file's tests, by the file's name; one process runs all."""
    folder = tmp_path_factory.mktemp("suite")
    for name, text in (("right", RIGHT), ("wrong", WRONG), ("decorated", DECORATED)):
        (folder / f"test_{name}.py").write_text(text)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--rootdir", folder]
    done = subprocess.run(
        [*map(str, command), "-c", "/dev/null", str(folder)],
        capture_output=True,
        text=True,
        cwd=root,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PATH": ""},
        check=False,
    )
    lines = done.stdout.splitlines()
    assert f"collected {5 * FAST + 2} items" in done.stdout, done.stdout + done.stderr
    found = {
        name: [line for line in lines if f"test_{name}.py" in line]
        for name in ("right", "wrong", "decorated")
    }
    return {"all": done.stdout, **{name: "\n".join(those) for name, those in found.items()}}


def count(status: str, text: str) -> int:
    return sum(line.startswith(f"{status} ") for line in text.splitlines())


def test_class_collects_one_test_for_each_check(outputs: dict[str, str]) -> None:
    right = outputs["right"]
    assert "TestSwish::test_layer[gradient_numerical]" in right
    assert count("PASSED", right) > FAST / 2
    assert count("FAILED", right) == 0


def test_fault_is_shown_in_words_without_a_traceback(outputs: dict[str, str]) -> None:
    assert count("FAILED", outputs["wrong"]) > 0
    assert "everywhere twice that: counted twice?" in outputs["all"]
    assert "Each gradient agrees with central differences" in outputs["all"]
    assert "Traceback" not in outputs["all"]


def test_decorator_makes_a_test_for_each_sample_and_check(outputs: dict[str, str]) -> None:
    decorated = outputs["decorated"]
    assert "[Swish-runs" in decorated
    # Scale's docstring does not name its parameter: the one fault here.
    assert count("FAILED", decorated) == 1
    assert "say what factor is" in outputs["all"]


def test_one_call_fails_with_every_failed_check_by_name() -> None:
    with pytest.raises(pytest.fail.Exception) as raised:
        assert_checks_pass(CountedTwice, [(CountedTwice(), [(2, 3)])])
    report = run_checks(CountedTwice, [(CountedTwice(), [(2, 3)])])
    assert len(report.failures) > 1
    first, *told = str(raised.value).split("\n\n")
    assert first.startswith(f"{len(report.failures)} of {len(report.rows)} checks failed for ")
    assert [text.split(": ")[0] for text in told] == [row.check for row in report.failures]
    assert "everywhere twice that: counted twice?" in str(raised.value)


def test_one_call_returns_the_report_of_a_sound_layer() -> None:
    report = assert_checks_pass(Swish(beta=2.0))
    assert report.ok
    assert len(report.rows) == FAST

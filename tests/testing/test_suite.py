"""The kit under pytest: what an author's five lines collect, and how faults are shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from graphnet.testing import CHECKS

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


def run(text: str, folder: Path) -> str:
    (folder / "test_plugin.py").write_text(text)
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
    return done.stdout + done.stderr


def test_class_collects_one_test_for_each_check(tmp_path: Path) -> None:
    output = run(RIGHT, tmp_path)
    assert f"collected {FAST} items" in output
    assert "PASSED" in output
    assert "failed" not in output.splitlines()[-1]
    assert "TestSwish::test_layer[gradient_numerical]" in output


def test_fault_is_shown_in_words_without_a_traceback(tmp_path: Path) -> None:
    output = run(WRONG, tmp_path)
    assert "FAILED" in output
    assert "everywhere twice that: counted twice?" in output
    assert "Each gradient agrees with central differences" in output
    assert "Traceback" not in output


def test_decorator_makes_a_test_for_each_sample_and_check(tmp_path: Path) -> None:
    output = run(DECORATED, tmp_path)
    assert f"collected {3 * FAST} items" in output
    assert "[Swish-runs" in output
    # Scale's docstring does not name its parameter: the one fault here.
    assert "1 failed" in output.splitlines()[-1]
    assert "say what factor is" in output

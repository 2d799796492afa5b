"""A training that is killed, or whose disk is full, loses nothing. `make torture` tries much more."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.crash.faults import run_attack, run_with_faults

pytestmark = [
    pytest.mark.crash,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="these tests fork, and need Linux"),
]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_training_survives_a_fault_at_every_change_of_a_file() -> None:
    result = run_with_faults("tests.crash.each_change", "--every", "23")
    assert result["changes"] > 60
    assert result["trials"] >= 9
    assert result["wrong"] == []


def test_a_training_that_is_killed_at_random_moments_ends_with_the_same_bits() -> None:
    ways = "adam, ema;accumulate;dropout;stream"
    result = run_attack("tests.crash.kills", "--kills", "8", "--ways", ways)
    assert result["kills"] == 8
    assert result["trainings"] >= 8
    assert result["wrong"] == []


def test_processes_of_which_one_is_killed_are_restarted_and_end_with_the_same_bits() -> None:
    result = run_attack("tests.crash.processes", "--kills", "2")
    assert result["kills"] == 2
    assert result["wrong"] == []


@pytest.mark.parametrize(("name", "number"), [("threads", 800), ("folder", 1)])
def test_long_use(name: str, number: int) -> None:
    assert run_attack("tests.crash.endurance", name, "--number", str(number))["wrong"] == []

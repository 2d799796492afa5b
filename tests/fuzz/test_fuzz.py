"""Mutated inputs are read or refused in words, soon and with no other exception.

`make fuzz` sets GRAPHNET_FUZZ_FILES for many more; `make guided` searches for inputs that reach new code.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.fuzz.kept import FOLDER, kept
from tests.fuzz.targets import TARGETS

TRIALS = int(os.environ.get("GRAPHNET_FUZZ_FILES", "150"))
_SLOW_S = 20.0  # a hang, on a machine however busy


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    corpus = target.corpus()
    for seed in range(TRIALS):
        data = target.mutate(random.Random(seed), corpus)
        started = time.monotonic()
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert time.monotonic() - started < _SLOW_S, f"seed {seed}"


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_once_reached_new_code_are_read_or_refused(name: str) -> None:
    for data in kept(name):
        TARGETS[name].run(data)


def test_each_file_of_kept_inputs_belongs_to_a_target() -> None:
    names = {path.stem.removesuffix("-faults") for path in FOLDER.glob("*.txt")}
    assert names <= {*TARGETS}

"""Arguments of the wrong kind are errors in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphnet.errors import InputError
from graphnet.system import as_count, as_path, as_seed, require


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_path(None, "load"), "load: expected a path, got None."),
        (lambda: as_path(3, "load"), "load: expected a path, got a int."),
        (lambda: as_path(b"model.yaml", "load"), "load: expected a path, got a bytes."),
        (lambda: as_path("a\0b", "load"), "load: expected a path, got .*null"),
        (lambda: as_path("x" * 5000, "load"), "load: the path 'xxx.*is too long."),
        (lambda: as_seed(2**63, "Model"), "Model: seed: expected an integer from .*, got 9223"),
        (lambda: as_seed(-(2**63) - 1, "Model"), "expected an integer from"),
        (lambda: as_seed(1.0, "Model"), r"expected an integer from .*, got 1\.0\."),
        (lambda: as_seed(True, "Model"), "expected an integer from .*, got True"),
        (lambda: as_count(-1, "rewind: steps_done"), "expected an integer of 0 or more, got -1"),
        (lambda: require(True, int, "explain: width", "a number"), "expected a number, got a bool"),
    ],
)
def test_the_error_says_what_was_expected_and_found(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_right_arguments_are_taken(tmp_path: Path) -> None:
    assert as_path(tmp_path / "missing" / "model.yaml", "load") == tmp_path / "missing/model.yaml"
    assert as_path(str(tmp_path), "load") == tmp_path
    for seed in (-(2**63), np.int64(3), 2**63 - 1):
        assert as_seed(seed, "Model") == seed
    assert as_count(np.int32(0), "rewind: steps_done") == 0

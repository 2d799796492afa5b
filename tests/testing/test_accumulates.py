"""The check `accumulates` looks at the plan: where the plan loses a gradient, it fails."""

from __future__ import annotations

from typing import Any

import pytest

from graphnet.sdk import Accumulate
from graphnet.testing import CHECKS, CheckFailure, cases_for
from tests.support.broken import Affine, Centered, Dropping

(CHECK,) = (check for check in CHECKS if check.name == "accumulates")


@pytest.mark.parametrize("layer", [Affine, Centered, Dropping])
def test_plan_that_forgets_a_call_is_noticed(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = cases_for(layer)
    CHECK(case)
    monkeypatch.setattr(Accumulate, "forward", lambda self, *xs: xs[0])
    with pytest.raises(CheckFailure, match="is not the sum of both calls"):
        CHECK(case)

"""The checks of other dtypes and devices: what they ask a kernel for."""

from __future__ import annotations

import pytest
import torch

from graphnet.builtin.kernels.aten.resample import AtenBilinearUpsampling
from graphnet.testing import CHECKS, Status, cases_for
from graphnet.testing.report import judge


def test_a_kernel_that_is_for_the_cpu_alone_is_not_run_on_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (cuda,) = (check for check in CHECKS if check.name == "cuda")
    cases = cases_for(AtenBilinearUpsampling)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    row = judge(cuda, cases)
    assert row.status is Status.SKIPPED
    assert "the kernel does not match inputs in torch.float64 on cuda" in row.message

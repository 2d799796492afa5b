"""The ablation leaves out what it says, and times only plans that change."""

from __future__ import annotations

import pytest

from benchmarks.networks import PAPER
from benchmarks.workloads import Task, Workload

pytest.importorskip("graphnet_cpu", reason="graphnet-cpu is not installed")

from graphnet_cpu import gemm_operators

from benchmarks.ablation import PARTS, build, measure, titles

SMALL = Workload("small", PAPER, (2, 3, 32, 32), Task.TRAIN)
pytestmark = pytest.mark.skipif(
    bool(gemm_operators.CPP.problem()), reason="the C++ kernels cannot be compiled here"
)


def test_kernels_of_a_part_are_left_out_of_the_plan() -> None:
    whole = titles(build(SMALL, "float32", lambda _name, kernel: kernel))
    assert any("[gemm]" in title for title in whole)
    assert not any("[gemm]" in title for title in titles(build(SMALL, "float32", PARTS["gemm"])))
    assert titles(build(SMALL, "float32", PARTS["strided"])) == whole


def test_only_parts_that_change_the_plan_are_timed() -> None:
    (row,) = measure(SMALL, "float32", budget_s=0.05)
    assert row["part"] == "gemm"
    assert row["with_ms"] > 0
    assert row["without_ms"] > 0

"""The kernels pass the conformance kit on their own samples, and are tried before the built-in ones."""

from __future__ import annotations

import pytest
import torch
from graphnet_cpu import chain_operators, gemm_operators, plugin, winograd_operators

import graphnet as gn
from graphnet.sdk import load_registry
from graphnet.testing import CHECKS, Status, assert_checks_pass, cases_for
from graphnet.testing.report import judge

OPERATORS = (chain_operators, gemm_operators, winograd_operators)
for problem in filter(None, (operators.CPP.problem() for operators in OPERATORS)):
    pytest.skip(f"the kernels cannot be compiled here: {problem}", allow_module_level=True)

REGISTRY = load_registry(plugins=[plugin], entry_points=False)
KERNELS = {
    name: entry.value for name, entry in REGISTRY.kernels.items() if not entry.plugin.builtin
}
PATCH = {"conv2d": {"out_channels": 8, "kernel_size": 2, "stride": 2}}
WIDE = {"conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}}


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_passes_the_kit(name: str) -> None:
    report = assert_checks_pass(KERNELS[name], registry=REGISTRY)
    passed = {row.check for row in report.rows if row.status is Status.PASSED}
    assert {"runs", "docstring", "forward_pure", "forward_observed", "float32"} <= passed


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_compiles_with_inductor(name: str) -> None:
    (inductor,) = (check for check in CHECKS if check.name == "inductor")
    row = judge(inductor, cases_for(KERNELS[name], registry=REGISTRY)[:1])
    assert row.status is Status.PASSED, row.message


def titles(kernels: str, device: str = "cpu") -> list[str]:
    model = gn.Model({"input": {"channels": 16}, "layers": [PATCH, WIDE]}, registry=REGISTRY)
    plan = model.plan((2, 16, 32, 32), kernels=kernels, device=device)
    return [step.call.title for step in plan.steps if "conv2d" in step.call.title]


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        ("auto", ["conv2d [gemm]", "conv2d [aten]"]),  # 8 channels are too few for Winograd's maps
        ("gemm", ["conv2d [gemm]", "conv2d"]),
        ("strided", ["conv2d [strided]", "conv2d"]),
        ("patch", ["conv2d [patch]", "conv2d"]),
        ("reference", ["conv2d", "conv2d"]),
    ],
)
def test_installed_kernels_come_before_the_built_in_ones(kernels: str, expected: list[str]) -> None:
    assert titles(kernels) == expected


def test_operators_have_a_namespace_of_their_own() -> None:
    names = {str(gemm_operators.affine), str(winograd_operators.winograd_convolution)}
    assert names == {"graphnet_cpu.affine", "graphnet_cpu.winograd_convolution"}
    assert torch.ops.graphnet_cpu.patch_chain is chain_operators.patch_chain

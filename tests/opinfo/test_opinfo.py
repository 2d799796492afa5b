"""Layers and their kernels equal torch's operators on torch's own sample inputs, or refuse them in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin import ReLU
from tests.opinfo.judge import Status, Use, judge, operators, tally
from tests.opinfo.rows import ROWS

F = "nn.functional."
QUICK = {  # operator -> the least samples that are equal; `make opinfo` runs all
    f"{F}conv1d": 5,
    f"{F}conv2d": 15,
    f"{F}conv3d": 10,
    f"{F}conv_transpose1d": 5,
    f"{F}conv_transpose2d": 6,
    f"{F}conv_transpose3d": 5,
    f"{F}avg_pool1d": 9,
    f"{F}avg_pool2d": 2,
    f"{F}avg_pool3d": 4,
    f"{F}max_pool3d": 192,
    f"{F}adaptive_avg_pool1d": 3,
    f"{F}adaptive_avg_pool2d": 5,
    f"{F}adaptive_avg_pool3d": 6,
    f"{F}adaptive_max_pool1d": 2,
    f"{F}adaptive_max_pool2d": 6,
    f"{F}adaptive_max_pool3d": 5,
    f"{F}batch_norm": 4,
    f"{F}group_norm": 17,
    f"{F}instance_norm": 1,
    f"{F}pad.constant": 29,
    f"{F}pad.reflect": 7,
    f"{F}pad.replicate": 7,
    f"{F}pad.circular": 7,
    f"{F}interpolate.linear": 12,
    f"{F}interpolate.bilinear": 18,
    f"{F}interpolate.trilinear": 18,
    f"{F}pixel_shuffle": 5,
    f"{F}pixel_unshuffle": 5,
    f"{F}linear": 18,
    f"{F}relu": 4,
    f"{F}leaky_relu": 9,
    f"{F}prelu": 5,
    "sigmoid": 3,
    "tanh": 1,
    f"{F}gelu": 8,
    f"{F}silu": 3,
    f"{F}softplus": 3,
    f"{F}mse_loss": 4,
    f"{F}l1_loss": 4,
    f"{F}huber_loss": 3,
    f"{F}smooth_l1_loss": 4,
    f"{F}embedding": 3,
    "softmax": 6,
    "log_softmax": 6,
    f"{F}layer_norm": 5,
    f"{F}rms_norm": 5,
    f"{F}scaled_dot_product_attention": 8,
    f"{F}cross_entropy": 6,
    f"{F}nll_loss": 5,
    f"{F}binary_cross_entropy_with_logits": 6,
    "mean": 16,
    "flatten": 5,
    "reshape": 1,
    "permute": 4,
    "transpose": 7,
    "chunk": 1,
    "add": 9,
    "mul": 9,
    "matmul": 8,
    "bmm": 1,
    "sub": 9,
    "narrow": 3,
    "cat": 8,
}
WITHOUT_KERNEL = {
    *("add", "mul", "matmul", "bmm", "sub", "cat", "narrow", "chunk", "mean"),
    *("flatten", "reshape", "permute", "transpose"),
    *(f"{F}{name}_loss" for name in ("l1", "smooth_l1", "huber")),
}


@pytest.fixture(scope="module")
def op_infos() -> Mapping[str, Any]:
    return operators()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", QUICK)
def test_no_sample_of_an_operator_is_wrong(
    name: str, op_infos: Mapping[str, Any], device: torch.device
) -> None:
    found = tally(name, op_infos[name], ROWS[name], device)
    assert found.reasons(Status.WRONG) == {}
    assert found.count(Status.EQUAL) >= QUICK[name]
    with_kernel = not (name.startswith(f"{F}pad") or name in WITHOUT_KERNEL)
    assert any(verdict.by_kernel for verdict in found.verdicts) is with_kernel


def test_every_row_belongs_to_an_operator(op_infos: Mapping[str, Any]) -> None:
    assert set(ROWS) <= set(op_infos)
    assert set(QUICK) <= set(ROWS)


def test_a_layer_that_computes_another_function_is_wrong(op_infos: Mapping[str, Any]) -> None:
    def row(x: Tensor) -> Use:
        return Use(ReLU(), [x])

    op = op_infos["sigmoid"]
    samples = op.sample_inputs("cpu", torch.float64, requires_grad=True)
    verdicts = [judge(op, row, sample) for sample in samples if sample.input.numel()]
    assert verdicts
    assert {verdict.status for verdict in verdicts} == {Status.WRONG}

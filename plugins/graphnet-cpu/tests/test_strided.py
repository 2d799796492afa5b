"""The strided kernels: their operators against torch in float64, and where they are used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphnet_cpu import gemm_operators as operators
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import graphnet as gn
from tests.support.oracle import random_tensor, relative_error

if problem := operators.CPP.problem():
    pytest.skip(f"the kernels cannot be compiled here: {problem}", allow_module_level=True)

BOUNDS = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 1e-2}


@settings(max_examples=200)
@given(
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(1, 40)] * 2),
    st.tuples(*[st.integers(1, 9)] * 2),
    st.sampled_from(list(BOUNDS)),
    st.tuples(*[st.booleans()] * 5),
)
def test_convolutions_and_gradients_are_those_of_torch_in_float64(
    sizes: tuple[int, int, int],
    channels: tuple[int, int],
    patches: tuple[int, int],
    dtype: torch.dtype,
    flags: tuple[bool, bool, bool, bool, bool],
) -> None:
    (n, *kernel), (c, k) = sizes, channels
    transposed, relu, dense, wants_x, wants_bias = flags
    if dtype == torch.bfloat16:
        c, k = c + c % 2, k + k % 2
    high, wide = patches if transposed else (p * s for p, s in zip(patches, kernel, strict=True))
    memory_format = torch.contiguous_format if dense else torch.channels_last
    x = random_tensor((n, c, high, wide), seed=0, dtype=dtype).to(memory_format=memory_format)
    weight = random_tensor((*((c, k) if transposed else (k, c)), *kernel), seed=1, dtype=dtype)
    bias = random_tensor((k,), seed=2, dtype=dtype) if wants_bias else None
    y = operators.patch_convolution(x, weight, bias, transposed, relu)

    convolution: Any = functional.conv_transpose2d if transposed else functional.conv2d
    given_to_torch = [t.double().requires_grad_() for t in (x, weight, torch.zeros(k))]
    with torch.enable_grad():
        plain = convolution(*given_to_torch, stride=kernel)
        exact = plain.detach() + (0.0 if bias is None else bias.double().view(-1, 1, 1))
        exact = exact.relu() if relu else exact
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert relative_error(y.double(), exact) < BOUNDS[dtype]

        grad = random_tensor(tuple(y.shape), seed=3, dtype=dtype).to(memory_format=memory_format)
        masked = grad.double() * (y > 0) if relu else grad.double()
        expected = torch.autograd.grad(plain, given_to_torch, masked)
    mask = y if relu else None
    made = operators.patch_gradients(grad, x, weight, mask, transposed, wants_x, wants_bias)
    for gradient, theirs, is_wanted in zip(
        made, expected, (wants_x, True, wants_bias), strict=True
    ):
        assert gradient.numel() == (theirs.numel() if is_wanted else 0)
        if is_wanted:
            assert relative_error(gradient.double(), theirs) < BOUNDS[dtype]


def test_residual_network_selects_strided_kernels_and_patch_network_does_not() -> None:
    residual = gn.Model(
        {
            "input": {"channels": 8},
            "layers": [
                {"id": "first", "conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}},
                {"id": "down", "conv2d": {"out_channels": 16, "kernel_size": 2, "stride": 2}},
                {"id": "body", "conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}},
                {
                    "id": "up",
                    "transpose_conv2d": {"out_channels": 16, "kernel_size": 2, "stride": 2},
                },
                {"id": "last", "add": {}, "inputs": ["up", "first"]},
            ],
        }
    )
    chain = gn.Model(
        {
            "input": {"channels": 8},
            "layers": [
                {"id": "down", "conv2d": {"out_channels": 16, "kernel_size": 2, "stride": 2}},
                {
                    "id": "up",
                    "transpose_conv2d": {"out_channels": 16, "kernel_size": 2, "stride": 2},
                },
            ],
        }
    )
    found = [step.call.title for step in residual.plan((2, 8, 32, 32)).steps]
    assert "conv2d [strided]" in found
    assert "transpose_conv2d [strided]" in found
    assert not any("strided" in step.call.title for step in chain.plan((2, 8, 32, 32)).steps)

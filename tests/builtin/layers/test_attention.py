"""Attention over channels against torch's autograd through the papers' formulas, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin.layers.attention import SimplifiedChannelAttention, TransposedAttention
from graphnet.errors import GraphError
from graphnet.graph import bind_inputs
from graphnet.sdk import Layer, Spec, Uniform
from tests.support.oracle import (
    STRIDES,
    assert_near,
    central_differences,
    random_tensor,
    relative_error,
    run,
    run_torch,
)


def simplified(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As NAFNet states it: a pooling, a 1x1 convolution, a product."""
    return x * F.conv2d(F.adaptive_avg_pool2d(x, 1), weight, bias)


def transposed(qkv: Tensor, temperature: Tensor) -> Tensor:
    """As Restormer states it: rows of unit length, their products, a softmax."""
    n, _, h, w = qkv.shape
    heads = temperature.shape[0]
    q, k, v = (part.reshape(n, heads, -1, h * w) for part in qkv.chunk(3, dim=1))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    attention = (q @ k.transpose(-2, -1) * temperature).softmax(dim=-1)
    return (attention @ v).reshape(n, -1, h, w)


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (1, 1, 1, 1), (3, 6, 2, 7)])
@pytest.mark.parametrize("strides", STRIDES)
def test_simplified_attention_equals_torch(
    shape: tuple[int, ...], strides: str, device: torch.device
) -> None:
    channels = shape[1]
    arguments = {
        "x": random_tensor(shape, seed=1, strides=strides, device=device),
        "weight": random_tensor((channels, channels, 1, 1), seed=2, device=device),
        "bias": random_tensor((channels,), seed=3, device=device),
    }
    grad_y = random_tensor(shape, seed=4, strides=strides, device=device)
    expected = run_torch(simplified, arguments, grad_y)
    assert_near(run(SimplifiedChannelAttention(), arguments, grad_y), expected, bound=1e-12)


@pytest.mark.parametrize(
    ("heads", "shape"), [(1, (2, 12, 5, 3)), (4, (1, 24, 2, 2)), (2, (3, 6, 1, 4))]
)
@pytest.mark.parametrize("strides", STRIDES)
def test_transposed_attention_equals_torch(
    heads: int, shape: tuple[int, ...], strides: str, device: torch.device
) -> None:
    arguments = {
        "qkv": random_tensor(shape, seed=1, strides=strides, device=device),
        "temperature": random_tensor((heads, 1, 1), seed=2, device=device) + 1.5,
    }
    grad_y = random_tensor(
        (shape[0], shape[1] // 3, *shape[2:]), seed=3, strides=strides, device=device
    )
    expected = run_torch(transposed, arguments, grad_y)
    assert_near(run(TransposedAttention(num_heads=heads), arguments, grad_y), expected, bound=1e-11)


def test_gradients_of_transposed_attention_equal_central_differences() -> None:
    layer, temperature = TransposedAttention(num_heads=2), torch.tensor([[[0.7]], [[2.0]]]).double()
    qkv, grad_y = random_tensor((1, 12, 2, 3), seed=1), random_tensor((1, 4, 2, 3), seed=2)
    found = run(layer, {"qkv": qkv, "temperature": temperature}, grad_y)
    numeric = central_differences(lambda x: layer.forward(x, temperature)[0], qkv, grad_y)
    assert relative_error(found["grad_qkv"], numeric) <= 1e-7
    numeric = central_differences(lambda t: layer.forward(qkv, t)[0], temperature, grad_y)
    assert relative_error(found["grad_temperature"], numeric) <= 1e-7


def test_rows_without_length_are_handled_as_torch_does() -> None:
    qkv = random_tensor((1, 6, 2, 2), seed=1)
    qkv[0, 1] = 0.0  # the second row of q
    qkv[0, 2] *= 1e-14  # the first row of k: shorter than the least norm
    arguments = {"qkv": qkv, "temperature": torch.ones(1, 1, 1, dtype=torch.float64)}
    grad_y = random_tensor((1, 2, 2, 2), seed=2)
    expected = run_torch(transposed, arguments, grad_y)
    found = run(TransposedAttention(num_heads=1), arguments, grad_y)
    assert_near(found, expected, bound=1e-11)
    for row in (slice(0, 1), slice(3, 4), slice(4, 6)):  # beside rows with huge gradients
        error = (found["grad_qkv"] - expected["grad_qkv"])[0, row].abs().max()
        assert error <= 1e-11 * max(1.0, float(expected["grad_qkv"][0, row].abs().max()))


def test_simplified_attention_by_hand() -> None:
    arguments = {
        "x": torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]]),  # means 2 and 1
        "weight": torch.tensor([[1.0, -1.0], [0.0, 3.0]]).view(2, 2, 1, 1),
        "bias": torch.tensor([0.5, 0.0]),
    }
    # gates 2 - 1 + 0.5 = 1.5 and 3;  g x summed: 1 * 1 + 1 * 3 = 4 and 2 * 0 + 1 * 2 = 2
    grad_y = torch.tensor([[[[1.0, 1.0]], [[2.0, 1.0]]]])
    found = run(SimplifiedChannelAttention(), arguments, grad_y)
    assert found["y"].tolist() == [[[[1.5, 4.5]], [[0.0, 6.0]]]]
    # W^T (4, 2) / 2 = (2, 1) comes to g * gates
    assert found["grad_x"].tolist() == [[[[3.5, 3.5]], [[7.0, 4.0]]]]
    assert found["grad_weight"].flatten().tolist() == [8.0, 4.0, 4.0, 2.0]
    assert found["grad_bias"].tolist() == [4.0, 2.0]


def test_transposed_attention_by_hand() -> None:
    # Two channels, two pixels: q = (1 0; 0 1), k = (3 0; 0 5) of equal direction, v = (1 2; 5 6).
    qkv = torch.tensor([1.0, 0, 0, 1, 3, 0, 0, 5, 1, 2, 5, 6]).view(1, 6, 1, 2)
    temperature = torch.tensor([[[math.log(3.0)]]])  # softmax of (log 3, 0) is (3/4, 1/4)
    y, cosine, *_ = TransposedAttention(num_heads=1).forward(qkv, temperature)
    assert cosine.tolist() == [[[[1.0, 0.0], [0.0, 1.0]]]]
    assert y.flatten().tolist() == pytest.approx([2.0, 3.0, 4.0, 5.0])


def test_saved_values_of_transposed_attention_do_not_grow_with_the_image() -> None:
    layer = TransposedAttention(num_heads=2)
    small, large = (
        [s.shape for s in layer.forward(torch.ones(1, 12, n, n), torch.ones(2, 1, 1))[1:]]
        for n in (2, 16)
    )
    assert small == large == [(1, 2, 2, 2), (1, 2, 2, 2), (1, 2, 2, 2)]
    assert "y" not in layer.signature.backward


def test_bfloat16_is_within_rounding_of_float64() -> None:
    layer = TransposedAttention(num_heads=2)
    narrow = {
        "qkv": random_tensor((2, 24, 16, 16), seed=1, dtype=torch.bfloat16),
        "temperature": torch.full((2, 1, 1), 3.0, dtype=torch.bfloat16),
    }
    grad_y = random_tensor((2, 8, 16, 16), seed=2, dtype=torch.bfloat16)
    exact = run(layer, {name: t.double() for name, t in narrow.items()}, grad_y.double())
    for name, tensor in run(layer, narrow, grad_y).items():
        assert tensor.dtype == (torch.float32 if name == "grad_temperature" else torch.bfloat16)
        assert relative_error(tensor.double(), exact[name]) <= 0.02


def test_parameters_start_as_the_papers_do() -> None:
    simple, crossed = (
        bind_inputs(layer, [Spec((1, 12, 4, 4))], torch.float32).parameters
        for layer in (SimplifiedChannelAttention(), TransposedAttention(num_heads=2))
    )
    weight, temperature = simple["weight"], crossed["temperature"]
    assert weight is not None
    assert temperature is not None
    assert (weight.shape, weight.initializer) == ((12, 12, 1, 1), Uniform(1 / math.sqrt(12)))
    ones = temperature.initializer(torch.empty(temperature.shape), torch.Generator())
    assert ones.tolist() == [[[1.0]], [[1.0]]]


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (SimplifiedChannelAttention(), (4, 4), "expected an input N x C x H x W"),
        (TransposedAttention(num_heads=2), (4, 4), "expected an input N x C x H x W"),
        (TransposedAttention(num_heads=2), (1, 9, 2, 2), "a multiple of 6, got 9"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    layer: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        bind_inputs(layer, [Spec(shape)], torch.float32)

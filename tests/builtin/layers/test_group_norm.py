"""group_norm and layer_norm2d, every kernel, against torch and by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphnet.builtin import LayerNorm2d
from graphnet.builtin.kernels.aten.norm import AtenGroupNorm, AtenLayerNorm2d
from graphnet.builtin.layers.group_norm import GroupNorm, InstanceNorm
from graphnet.errors import DescriptionError, GraphError
from graphnet.graph import bind_inputs
from graphnet.sdk import Layer, Spec
from tests.support.oracle import STRIDES, assert_near, kernel_of, random_tensor, run, run_torch

SHAPES = [(2, 6, 5, 7), (1, 6, 1, 3), (3, 12, 2, 2)]
kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])
NORMS = [
    GroupNorm(num_groups=3, eps=1e-3),
    GroupNorm(num_groups=1, affine=False),
    LayerNorm2d(eps=1e-3),
    LayerNorm2d(bias=False),
    LayerNorm2d(affine=False),
]
WITH_MEAN = [
    LayerNorm2d(subtract_mean=False, bias=False, eps=1e-5),
    LayerNorm2d(subtract_mean=False, eps=0.1),
    LayerNorm2d(subtract_mean=False, affine=False),
]


def layer_of(kernel: str, definition: GroupNorm | LayerNorm2d, x: Tensor) -> Layer:
    if kernel == "reference":
        return definition
    cls = AtenGroupNorm if isinstance(definition, GroupNorm) else AtenLayerNorm2d
    layer = kernel_of(cls, definition, [x])
    assert layer is not None
    return layer


def by_torch(definition: GroupNorm | LayerNorm2d) -> Callable[..., Tensor]:
    if isinstance(definition, GroupNorm):
        return lambda x, weight, bias: F.group_norm(
            x, definition.num_groups, weight, bias, definition.eps
        )

    def norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)
        if definition.subtract_mean:
            y = F.layer_norm(pixels, pixels.shape[-1:], weight, bias, definition.eps)
        else:  # as Restormer's BiasFree_LayerNorm states it
            y = pixels / torch.sqrt(pixels.var(-1, keepdim=True, unbiased=False) + definition.eps)
            y = y if weight is None else y * weight
            y = y if bias is None else y + bias
        return y.permute(0, 3, 1, 2)

    return norm


def arguments_of(
    definition: GroupNorm | LayerNorm2d, shape: tuple[int, ...], **options: Any
) -> dict[str, Tensor | None]:
    has_bias = definition.affine and getattr(definition, "bias", True)
    slots = {key: value for key, value in options.items() if key != "strides"}
    return {
        "x": random_tensor(shape, seed=1, **options) * 3 + 1,
        "weight": random_tensor(shape[1:2], seed=2, **slots) if definition.affine else None,
        "bias": random_tensor(shape[1:2], seed=3, **slots) if has_bias else None,
    }


@kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strides", STRIDES[:4])
@pytest.mark.parametrize("definition", NORMS, ids=str)
def test_value_and_gradients_equal_torch(
    kernel: str,
    shape: tuple[int, ...],
    strides: str,
    definition: GroupNorm | LayerNorm2d,
    device: torch.device,
) -> None:
    arguments = arguments_of(definition, shape, strides=strides, device=device)
    x = arguments["x"]
    assert x is not None
    grad_y = random_tensor(shape, seed=4, strides=strides, device=device)
    expected = run_torch(by_torch(definition), arguments, grad_y)
    found = run(layer_of(kernel, definition, x), arguments, grad_y)
    assert_near(found, expected, bound=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("definition", WITH_MEAN, ids=str)
def test_norm_that_keeps_the_mean_equals_its_formula_under_autograd(
    shape: tuple[int, ...], definition: LayerNorm2d, device: torch.device
) -> None:
    arguments = arguments_of(definition, shape, device=device)
    grad_y = random_tensor(shape, seed=4, device=device)
    expected = run_torch(by_torch(definition), arguments, grad_y)
    assert_near(run(definition, arguments, grad_y), expected, bound=1e-12)


@kernels
@pytest.mark.parametrize("definition", [NORMS[0], NORMS[2]], ids=str)
def test_float32_equals_float64(kernel: str, definition: GroupNorm | LayerNorm2d) -> None:
    arguments = arguments_of(definition, (2, 6, 40, 40))
    grad_y = random_tensor((2, 6, 40, 40), seed=4)
    exact = run(definition, arguments, grad_y)
    narrow = {name: None if t is None else t.float() for name, t in arguments.items()}
    x = narrow["x"]
    assert x is not None
    found = run(layer_of(kernel, definition, x), narrow, grad_y.float())
    assert_near({name: tensor.double() for name, tensor in found.items()}, exact, bound=1e-5)


@kernels
def test_group_norm_by_hand(kernel: str) -> None:
    x = torch.tensor([[[[1.0]], [[3.0]], [[10.0]], [[10.0]]]], dtype=torch.float64)
    weight, bias = torch.tensor([[10.0, 1.0, 2.0, 3.0], [5.0, 0.0, 7.0, -7.0]]).double()
    y = layer_of(kernel, GroupNorm(num_groups=2, eps=3.0), x).forward(x, weight, bias)[0]
    # the first group: mean 2, variance 1, so z = -1/2 and 1/2; the second does not vary
    assert y.flatten().tolist() == pytest.approx([0.0, 0.5, 7.0, -7.0])


@kernels
def test_layer_norm_by_hand_normalises_each_pixel(kernel: str) -> None:
    x = torch.tensor([[[[1.0, 5.0]], [[3.0, 5.0]]]], dtype=torch.float64)
    weight, bias = torch.tensor([[10.0, 1.0], [5.0, 0.0]], dtype=torch.float64)
    y = layer_of(kernel, LayerNorm2d(eps=3.0), x).forward(x, weight, bias)[0]
    # the first pixel: mean 2, variance 1, so z = -1/2 and 1/2; the second does not vary
    assert y.tolist() == [[[[0.0, 5.0]], [[0.5, 0.0]]]]


def test_norm_that_keeps_the_mean_by_hand() -> None:
    x = torch.tensor([[[[1.0, 5.0]], [[3.0, 5.0]]]], dtype=torch.float64)
    y = LayerNorm2d(subtract_mean=False, bias=False, eps=0.25).forward(x, torch.ones(2), None)[0]
    # 1 / sqrt(1 + 1/4) and 3 / sqrt(1 + 1/4);  5 / sqrt(1/4)
    small = 1 / 1.25**0.5
    assert y[0, :, 0, 0].tolist() == pytest.approx([small, 3 * small])
    assert y[0, :, 0, 1].tolist() == pytest.approx([10.0, 10.0])
    assert kernel_of(AtenLayerNorm2d, LayerNorm2d(subtract_mean=False), [x]) is None


def test_empty_batch_has_no_kernel() -> None:
    x = torch.zeros(0, 4, 3, 3)
    assert kernel_of(AtenGroupNorm, GroupNorm(num_groups=2), [x]) is None
    assert kernel_of(AtenLayerNorm2d, LayerNorm2d(), [x]) is None


@pytest.mark.parametrize(
    ("definition", "shape", "message"),
    [
        (GroupNorm(num_groups=4), (1, 6, 2, 2), r"num_groups \(4\) must divide .* \(6\)"),
        (GroupNorm(num_groups=2, num_channels=4), (1, 6, 2, 2), "Set num_channels: 6"),
        (GroupNorm(num_groups=2), (6,), "expected an input N x C x ..., got 6 float32"),
        (InstanceNorm(), (6, 4), "expected an input N x C x ... with spatial axes, got 6x4"),
        (LayerNorm2d(num_channels=4), (1, 6, 2, 2), "expected 4 input channels, got 6"),
        (LayerNorm2d(), (6, 4), "expected an input N x C x H x W, got 6x4"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    definition: Layer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        bind_inputs(definition, [Spec(shape)], torch.float32)


def test_parameters_that_are_left_out_are_absent() -> None:
    def absent(layer: Layer) -> list[str]:
        ports = bind_inputs(layer, [Spec((1, 4, 2, 2))], torch.float32)
        return [name for name, spec in ports.parameters.items() if spec is None]

    assert absent(LayerNorm2d()) == []
    assert absent(LayerNorm2d(bias=False)) == ["bias"]
    assert absent(LayerNorm2d(affine=False)) == ["weight", "bias"]
    assert absent(GroupNorm(num_groups=2, affine=False)) == ["weight", "bias"]


@pytest.mark.parametrize("fields", [{"eps": -1.0}, {"num_groups": 0}, {"num_channels": 0}])
def test_field_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(DescriptionError, match=next(iter(fields))):
        GroupNorm(**{"num_groups": 2} | fields)

"""The Winograd kernels against torch in float64: sizes, padding, channels, strides, dtypes, threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphnet_cpu import winograd_operators as operators
from graphnet_cpu.winograd import WinogradConv2d, WinogradConv2dReLU, WinogradResidual
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphnet.builtin import SGD, Add, Conv2d, ReLU
from graphnet.graph import Kind
from graphnet.model import Model
from graphnet.sdk import Kernel, Site, Spec, load_registry
from tests.support.oracle import STRIDES, random_tensor, relative_error

if problem := operators.CPP.problem():
    pytest.skip(f"the kernels cannot be compiled here: {problem}", allow_module_level=True)

ALL = frozenset({"x", "weight", "bias"})


def site(shape: tuple[int, ...] = (4, 16, 16, 16), **fields: object) -> Site:
    given: dict[str, Any] = {"out_channels": 16, "kernel_size": 3, "padding": 1, **fields}
    dtype = given.pop("dtype", torch.float32)
    device = torch.device(str(given.pop("device", "cpu")))
    assert isinstance(dtype, torch.dtype)
    return Site((Conv2d(**given),), {"x": Spec(shape, dtype, device)}, device)


def test_padding_that_is_not_of_zeros_is_left_alone() -> None:
    assert WinogradConv2d.match(site()) is not None
    assert WinogradConv2d.match(site(padding=0, padding_mode="reflect")) is not None
    assert WinogradConv2d.match(site(padding_mode="reflect")) is None


def gradients_by_torch(
    grad_y: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    bias = torch.zeros(weight.shape[0], dtype=x.dtype, requires_grad=True)
    with torch.enable_grad():
        y = F.conv2d(x, weight, bias, padding=padding)
    grad_x, grad_weight, grad_bias = torch.autograd.grad(y, (x, weight, bias), grad_y)
    return grad_x, grad_weight, grad_bias


sizes = st.integers(1, 14)
channels = st.integers(1, 40)


@settings(max_examples=300)
@given(
    st.tuples(st.integers(1, 3), channels, sizes, sizes),
    channels,
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(*[st.sampled_from(STRIDES)] * 3),
    st.booleans(),
)
def test_forward_and_gradients_equal_torch(
    shape: tuple[int, int, int, int],
    out_channels: int,
    padding: tuple[int, int],
    strides: tuple[str, str, str],
    relu: bool,
) -> None:
    """Any sizes that leave an output, also those for which `match` prefers another kernel."""
    if shape[2] + 2 * padding[0] < 3 or shape[3] + 2 * padding[1] < 3:
        return
    kernel: WinogradConv2d | WinogradConv2dReLU
    kernel = (WinogradConv2dReLU if relu else WinogradConv2d)(padding=padding)
    x = random_tensor(shape, seed=0, strides=strides[0])
    weight = random_tensor((out_channels, shape[1], 3, 3), seed=1, strides=strides[1])
    bias = random_tensor((out_channels,), seed=2, strides="sliced")
    before = [t.clone() for t in (x, weight, bias)]
    y = kernel.forward(x, weight, bias)
    expected = F.conv2d(x, weight, bias, padding=padding)
    expected = expected.relu() if relu else expected
    assert relative_error(y, expected) < 1e-13
    grad_y = random_tensor(tuple(y.shape), seed=3, strides=strides[2])
    if isinstance(kernel, WinogradConv2dReLU):
        found = kernel.backward(grad_y, x, y, weight, ALL)
    else:
        found = kernel.backward(grad_y, x, weight, ALL)
    masked = grad_y * (y > 0) if relu else grad_y
    for mine, theirs in zip(found, gradients_by_torch(masked, x, weight, padding), strict=True):
        assert mine is not None
        assert relative_error(mine, theirs) < 1e-12
    for now, then in zip((x, weight, bias), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_narrow_dtypes_are_within_their_stated_error(dtype: torch.dtype, bound: float) -> None:
    kernel = WinogradConv2dReLU(padding=(1, 1))
    x = random_tensor((4, 48, 24, 24), seed=0, dtype=dtype)
    weight = random_tensor((32, 48, 3, 3), seed=1, dtype=dtype) / 20
    bias = random_tensor((32,), seed=2, dtype=dtype)
    y = kernel.forward(x, weight, bias)
    assert y.dtype == dtype
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1).relu()
    assert relative_error(y.double(), exact) < bound
    grad_y = random_tensor((4, 32, 24, 24), seed=3, dtype=dtype)
    grad_x, grad_weight, grad_bias = kernel.backward(grad_y, x, y, weight, ALL)
    assert grad_x is not None
    assert grad_weight is not None
    assert grad_bias is not None
    assert grad_x.dtype == dtype
    assert grad_weight.dtype == grad_bias.dtype == torch.float32
    masked = grad_y.double() * (y > 0)
    exact_x, exact_weight, exact_bias = gradients_by_torch(
        masked, x.double(), weight.double(), (1, 1)
    )
    assert relative_error(grad_x.double(), exact_x) < bound
    assert relative_error(grad_weight.double(), exact_weight) < bound
    assert relative_error(grad_bias.double(), exact_bias) < 1e-5


@pytest.mark.parametrize("shape", [(1, 33, 9, 9), (3, 7, 5, 3), (1, 50, 13, 30), (2, 1, 4, 4)])
@pytest.mark.parametrize("out_channels", [1, 35, 64])
def test_bfloat16_with_odd_numbers_of_channels_and_tiles(
    shape: tuple[int, int, int, int], out_channels: int
) -> None:
    """Products take pairs of channels, and those of the gradients pairs of tiles."""
    kernel = WinogradConv2d(padding=(1, 1))
    x = random_tensor(shape, seed=0, dtype=torch.bfloat16)
    weight = random_tensor((out_channels, shape[1], 3, 3), seed=1, dtype=torch.bfloat16)
    y = kernel.forward(x, weight, None)
    assert relative_error(y.double(), F.conv2d(x.double(), weight.double(), padding=1)) < 3e-2
    grad_y = random_tensor(tuple(y.shape), seed=3, dtype=torch.bfloat16)
    found = kernel.backward(grad_y, x, weight, ALL)
    expected = gradients_by_torch(grad_y.double(), x.double(), weight.double(), (1, 1))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        assert relative_error(mine.double(), theirs) < 3e-2


@pytest.mark.usefixtures("threads")
def test_image_has_the_same_bits_for_each_number_of_threads() -> None:
    x = random_tensor((3, 17, 21, 10), seed=0, dtype=torch.float32)
    weight = random_tensor((20, 17, 3, 3), seed=1, dtype=torch.float32)
    grad = random_tensor((3, 20, 21, 10), seed=2, dtype=torch.float32)
    images, gradients = [], []
    for count in (1, 2, 2, 5):
        torch.set_num_threads(count)
        images.append(
            operators.winograd_convolution(x, weight, False, (1, 1), None, None, None, False)
        )
        gradients.append(operators.winograd_gradients(x, grad, (1, 1), None))
    assert all(torch.equal(image, images[0]) for image in images)
    assert all(map(torch.equal, gradients[1], gradients[2]))
    for one in gradients:  # more threads add in another order
        assert relative_error(one[0], gradients[0][0]) < 1e-5


def test_bfloat16_keeps_nan_and_infinity() -> None:
    x = torch.zeros(1, 32, 8, 8, dtype=torch.bfloat16)
    x[0, 0, 0, 0] = float("nan")
    weight = torch.zeros(32, 32, 3, 3, dtype=torch.bfloat16)
    weight[0, 0, 1, 1] = 1.0
    y = WinogradConv2d(padding=(1, 1)).forward(x, weight, None)
    assert bool(y[0, 0, 0, 0].isnan())
    assert bool(y[0, 1:, 4:, 4:].eq(0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_nan_passes_through_relu_as_in_torch(dtype: torch.dtype) -> None:
    x = random_tensor((4, 16, 16, 16), seed=0, dtype=dtype)
    x[1, 3, 9, 9] = float("nan")
    weight = random_tensor((16, 16, 3, 3), seed=1, dtype=dtype)
    y = WinogradConv2dReLU(padding=(1, 1)).forward(x, weight, None)
    assert bool(y[1, :, 8:11, 8:11].isnan().all())
    assert not bool(y[0].isnan().any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_saved_bfloat16_input_gives_the_gradients_of_its_rounded_values(dtype: torch.dtype) -> None:
    kernel = WinogradConv2dReLU(padding=(1, 1))
    x = random_tensor((2, 17, 13, 10), seed=0, dtype=torch.bfloat16)
    weight = random_tensor((20, 17, 3, 3), seed=1, dtype=dtype)
    grad_y = random_tensor((2, 20, 13, 10), seed=2, dtype=dtype)
    y = kernel.forward(x.to(dtype), weight, None).bfloat16()
    found = kernel.backward(grad_y, x, y, weight, ALL)
    expected = kernel.backward(grad_y, x.to(dtype), y.to(dtype), weight, ALL)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        assert theirs is not None
        assert mine.dtype == dtype
        assert torch.equal(mine, theirs)


def test_an_empty_batch_gives_an_empty_image_and_gradients_of_zeros() -> None:
    x, weight = torch.zeros(0, 16, 8, 8), torch.ones(16, 16, 3, 3)
    kernel = WinogradConv2d(padding=(1, 1))
    y = kernel.forward(x, weight, None)
    assert y.shape == (0, 16, 8, 8)
    grad_x, grad_weight, grad_bias = kernel.backward(y, x, weight, ALL)
    assert grad_x is not None
    assert grad_x.shape == x.shape
    assert grad_weight is not None
    assert not bool(grad_weight.any())
    assert grad_bias is not None
    assert not bool(grad_bias.any())


def test_residual_sum_is_fused_for_both_orders_of_its_terms() -> None:
    conv = {"conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}}
    for order, title in ((["in", "b"], "residual"), (["b", "in"], "conv2d_add")):
        layers = [
            {"id": "in", **conv},
            "sigmoid",
            {"id": "b", **conv},
            {"add": {}, "inputs": order},
        ]
        model = Model({"input": {"channels": 16}, "layers": layers}, registry=load_registry())
        shape, x = (4, 16, 16, 16), random_tensor((4, 16, 16, 16), seed=0, dtype=torch.float32)
        plan = model.plan(shape)
        last = plan.steps[-1].call
        assert (last.title, last.in_place) == (f"{title} [winograd]", True)  # over its argument
        found = model.predict(x)
        assert relative_error(found, model.predict(x, kernels="reference")) < 1e-5


def test_residual_sum_does_not_overwrite_the_input_of_the_convolution() -> None:
    """A tile reads pixels of its neighbours: y may not replace skip where skip is x."""
    conv = {"conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1}}
    layers = ["sigmoid", {"id": "b", **conv}, {"add": {}, "inputs": ["sigmoid_1", "b"]}]
    model = Model({"input": {"channels": 16}, "layers": layers}, registry=load_registry())
    last = model.plan((4, 16, 16, 16)).steps[-1].call
    assert (last.title, last.in_place) == ("residual [winograd]", False)


def test_sum_of_different_shapes_or_dtypes_is_not_fused() -> None:
    conv = Conv2d(out_channels=16, kernel_size=(3, 3), padding=(1, 1))
    x = Spec((4, 16, 16, 16), torch.float32)
    for skip, fits in (
        (x, True),
        (Spec((1, 16, 16, 16), torch.float32), False),
        (Spec(x.shape, torch.float64), False),
        (None, False),
    ):
        found = WinogradResidual.match(Site((Add(), conv), {"skip": skip, "x": x}, x.device))
        assert (found is not None) == fits


def test_only_wanted_gradients_are_computed() -> None:
    x, weight = torch.ones(2, 16, 8, 8), torch.ones(16, 16, 3, 3)
    found = WinogradConv2d(padding=(1, 1)).backward(x, x, weight, frozenset({"weight"}))
    assert [gradient is not None for gradient in found] == [False, True, False]


@pytest.mark.parametrize(
    "fields",
    [
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"groups": 2},
        {"padding": 3},
        {"out_channels": 8},
        {"shape": (4, 8, 16, 16)},
        {"shape": (3, 16, 16, 16)},  # 48 tiles: the map of the weights is not worth it
        {"shape": (32, 16, 5, 5)},  # 2.6 pixels computed for each one
        {"dtype": torch.float16},
        {"device": "meta"},
        {"dtype": torch.bfloat16},  # from 24 channels on
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [WinogradConv2d, WinogradConv2dReLU])
def test_winograd_kernels_refuse_other_convolutions(
    kernel: type[Kernel], fields: dict[str, object]
) -> None:
    fields = dict(fields)
    shape = fields.pop("shape", (4, 16, 16, 16))
    assert isinstance(shape, tuple)
    assert kernel.match(site(shape, **fields)) is None


def test_winograd_kernels_take_3x3_convolutions_of_stride_1() -> None:
    assert WinogradConv2d.match(site()) == WinogradConv2d(padding=(1, 1))
    assert WinogradConv2d.match(site(padding="same")) == WinogradConv2d(padding=(1, 1))
    assert WinogradConv2d.match(site(padding="valid", shape=(4, 16, 18, 18)))
    one = site(padding=(2, 0), shape=(4, 16, 16, 18))
    fused = Site((ReLU(), *one.layers), one.specs, one.device)
    assert WinogradConv2dReLU.match(fused) == WinogradConv2dReLU(padding=(2, 0))


def test_winograd_kernels_refuse_everything_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(operators.CPP), "problem", lambda self: "there is no compiler")
    assert WinogradConv2d.match(site()) is None


def test_plan_does_not_widen_a_saved_bfloat16_input_for_winograd() -> None:
    narrow, wide = (
        {"conv2d": {"out_channels": channels, "kernel_size": 3, "padding": 1}}
        for channels in (4, 16)
    )
    layers = [narrow, wide, "relu", wide, "relu", narrow]
    plan = Model({"input": {"channels": 4}, "layers": layers}).plan(
        (2, 4, 24, 24), loss="mse", optimizer=SGD(lr=0.1), saved_dtype="bfloat16"
    )
    calls = [step.call for step in plan.steps]
    (backward,) = (
        call
        for call in calls
        if isinstance(call.layer, WinogradConv2dReLU) and call.kind is Kind.BACKWARD
    )
    assert len([name for name in backward.reads() if name.endswith(":kept.y")]) == 2
    assert not any(f":kept:{backward.name}" in call.name for call in calls)

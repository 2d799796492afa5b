"""Convolution and transposed convolution, both kernels, against torch and against work by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphnet.builtin import AtenConv2d, Conv2d, TransposeConv2d
from graphnet.builtin.kernels.aten.convolution import AtenTransposeConv2d
from graphnet.errors import DescriptionError, GraphError
from graphnet.graph import bind_inputs, observe, observe_backward
from graphnet.model import Model
from graphnet.sdk import Kernel, Layer, Spec, Uniform
from tests.support.oracle import STRIDES, kernel_of, random_tensor, relative_error, specs_of

KERNELS: dict[type[Layer], type[Kernel]] = {
    Conv2d: AtenConv2d,
    TransposeConv2d: AtenTransposeConv2d,
}
ALL = frozenset({"x", "weight", "bias"})
# torch says this of even kernels under padding "same"; that it is right is what is tested here.
SAME_COPY = "ignore:Using padding='same' with even kernel lengths:UserWarning"


@dataclass(frozen=True)
class Case:
    """One configuration with its tensors: shape of x, strides of each tensor, wanted gradients."""

    layer: Conv2d | TransposeConv2d
    shape: tuple[int, int, int, int]
    strides: tuple[str, str, str] = ("contiguous", "contiguous", "contiguous")
    wanted: frozenset[str] = ALL
    seed: int = 0

    def tensors(self, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor | None]:
        """x, weight, bias, and grad_y in the shape that torch gives the output."""
        layer, channels = self.layer, self.shape[1]
        first, second = layer.out_channels, channels // layer.groups
        if isinstance(layer, TransposeConv2d):
            first, second = channels, layer.out_channels // layer.groups
        options = {"dtype": dtype, "device": device}
        x, weight, grad_y = self.strides
        made: dict[str, Tensor | None] = {
            "x": random_tensor(self.shape, seed=self.seed, strides=x, **options),
            "weight": random_tensor(
                (first, second, *layer.kernel_size), seed=self.seed + 1, strides=weight, **options
            ),
            "bias": random_tensor(
                (layer.out_channels,), seed=self.seed + 2, strides="sliced", **options
            ),
        }
        if not layer.bias:
            made["bias"] = None
        meta = {name: None if t is None else t.to("meta") for name, t in made.items()}
        shape = by_torch(layer, **meta).shape
        made["grad_y"] = random_tensor(shape, seed=self.seed + 3, strides=grad_y, **options)
        return made


def by_torch(
    layer: Conv2d | TransposeConv2d, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    if isinstance(layer, TransposeConv2d):
        return F.conv_transpose2d(
            x,
            weight,
            bias,
            layer.stride,
            layer.padding,
            layer.output_padding,
            layer.groups,
            layer.dilation,
        )
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def expected(
    layer: Conv2d | TransposeConv2d, tensors: dict[str, Tensor | None]
) -> dict[str, Tensor]:
    """y and the gradient of every argument, by torch and autograd, in float64 from plain memory."""
    plain = {
        name: tensor.to(torch.float64).clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
        if tensor is not None
    }
    grad_y = plain.pop("grad_y")
    leaves = {name: tensor.requires_grad_() for name, tensor in plain.items()}
    with torch.enable_grad():
        y = by_torch(layer, leaves["x"], leaves["weight"], leaves.get("bias"))
    grads = torch.autograd.grad(y, list(leaves.values()), grad_y)
    results = {"y": y.detach(), **dict(zip(leaves, grads, strict=True))}
    return {name: result.to(tensors["x"].dtype) for name, result in results.items()}


def worst_error(
    layer: Layer,
    tensors: dict[str, Tensor | None],
    truth: dict[str, Tensor],
    wanted: frozenset[str],
) -> float:
    """The largest relative error of forward and backward; checks purity and what meta tensors say."""
    before = {name: None if t is None else (t.clone(), t.stride()) for name, t in tensors.items()}
    arguments = {name: tensors[name] for name in ("x", "weight", "bias")}
    specs, grad_y = specs_of(arguments), specs_of({"grad_y": tensors["grad_y"]})
    results = {"y": layer.forward(**arguments)}
    (seen,) = observe(layer, "forward", specs)
    seen_grads = observe_backward(layer, specs, gradients=grad_y, wanted=wanted)
    grads = layer.backward(
        grad_y=tensors["grad_y"], x=tensors["x"], weight=tensors["weight"], wanted=wanted
    )
    for name, grad, seen_grad in zip(arguments, grads, seen_grads, strict=True):
        if name in wanted and name in truth:
            results[name] = grad
            assert seen_grad.spec.shape == grad.shape
            assert seen_grad.spec.dtype == grad.dtype
    assert seen.spec.shape == results["y"].shape
    assert seen.spec.dtype == results["y"].dtype
    for name, kept in before.items():
        if kept is not None:
            assert torch.equal(tensors[name], kept[0]), f"{name} was written"
            assert tensors[name].stride() == kept[1]
    return max(relative_error(found, truth[name]) for name, found in results.items())


def implementations(case: Case, tensors: dict[str, Tensor | None]) -> list[Layer]:
    """The reference layer and, where it matches, the aten kernel."""
    kernel = kernel_of(KERNELS[type(case.layer)], case.layer, [tensors["x"]])
    return [case.layer] if kernel is None else [case.layer, kernel]


def check(case: Case, device: torch.device, *, dtype: torch.dtype, bound: float) -> None:
    tensors = case.tensors(dtype, device)
    truth = expected(case.layer, tensors)
    available = ALL if case.layer.bias else ALL - {"bias"}
    for layer in implementations(case, tensors):
        assert worst_error(layer, tensors, truth, available) <= bound
        assert worst_error(layer, tensors, truth, case.wanted & available) <= bound


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def channels(draw: st.DrawFn) -> tuple[int, int, int]:
    """Input channels, output channels, groups; depthwise in a third of the cases with groups."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 4]))
    each = draw(st.sampled_from([1, 1, 2, 3]))
    return groups * each, groups * draw(st.integers(1, 3)), groups


@st.composite
def strides(draw: st.DrawFn) -> tuple[str, str, str]:
    """The strides of x, weight and grad_y."""
    return (
        draw(st.sampled_from(STRIDES)),
        draw(st.sampled_from(STRIDES[:-1])),
        draw(st.sampled_from(STRIDES)),
    )


wanted = st.frozensets(st.sampled_from(sorted(ALL)), min_size=1)
seeds = st.integers(0, 999)


@st.composite
def conv_cases(draw: st.DrawFn) -> Case:
    in_channels, out_channels, groups = draw(channels())
    kernel, dilation = draw(pairs(1, 4)), draw(pairs(1, 3))
    padding: tuple[int, int] | str = draw(
        st.one_of(pairs(0, 3), pairs(0, 3), pairs(0, 3), st.sampled_from(["same", "valid"]))
    )
    layer = Conv2d(
        out_channels=out_channels,
        kernel_size=kernel,
        stride=(1, 1) if padding == "same" else draw(pairs(1, 5)),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    around = {"same": [s - 1 for s in span], "valid": (0, 0)}.get(
        str(padding), [2 * p for p in layer.padding if isinstance(p, int)]
    )
    size = [
        max(1, s - p) + extra for s, p, extra in zip(span, around, draw(pairs(0, 6)), strict=True)
    ]
    shape = (draw(st.integers(1, 3)), in_channels, size[0], size[1])
    return Case(layer, shape, draw(strides()), draw(wanted), draw(seeds))


@st.composite
def transpose_cases(draw: st.DrawFn) -> Case:
    in_channels, out_channels, groups = draw(channels())
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 5)), draw(pairs(1, 4))
    size, output_padding, padding = draw(pairs(1, 5)), [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        extra = draw(st.integers(0, max(s, d) - 1))
        longest = (n - 1) * s + d * (k - 1) + 1 + extra
        output_padding.append(extra)
        padding.append(draw(st.integers(0, min(4, (longest - 1) // 2))))
    layer = TransposeConv2d(
        out_channels=out_channels,
        kernel_size=kernel,
        stride=stride,
        padding=(padding[0], padding[1]),
        output_padding=(output_padding[0], output_padding[1]),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    shape = (draw(st.integers(1, 3)), in_channels, *size)
    return Case(layer, shape, draw(strides()), draw(wanted), draw(seeds))


Fact = Callable[[Case], bool]
FACTS: dict[str, Fact] = {
    "dilation with stride": lambda c: max(c.layer.dilation) > 1 and max(c.layer.stride) > 1,
    "padding on one axis only": lambda c: (
        isinstance(c.layer.padding, tuple) and sorted(map(bool, c.layer.padding)) == [False, True]
    ),
    "a kernel that is not square": lambda c: c.layer.kernel_size[0] != c.layer.kernel_size[1],
    "a stride larger than the kernel": lambda c: c.layer.stride[0] > c.layer.kernel_size[0],
    "a kernel of one pixel": lambda c: c.layer.kernel_size == (1, 1),
    "groups": lambda c: c.layer.groups > 1,
    "depthwise": lambda c: 1 < c.layer.groups == c.shape[1],
    "no bias": lambda c: not c.layer.bias,
    "batch 1": lambda c: c.shape[0] == 1,
    "a strided input": lambda c: c.strides[0] in ("reversed", "sliced"),
    "an input in channels_last": lambda c: c.strides[0] == "channels_last",
    "an expanded gradient": lambda c: c.strides[2] == "expanded",
    "some gradients not wanted": lambda c: c.wanted != ALL,
}
CONV_FACTS: dict[str, Fact] = {
    **FACTS,
    "padding same": lambda c: c.layer.padding == "same",
    "uneven padding same": lambda c: (
        c.layer.padding == "same"
        and any(d * (k - 1) % 2 for d, k in zip(c.layer.dilation, c.layer.kernel_size, strict=True))
    ),
    "padding valid": lambda c: c.layer.padding == "valid",
    "rows left over": lambda c: (
        isinstance(c.layer.padding, tuple)
        and (
            c.shape[2]
            + 2 * c.layer.padding[0]
            - c.layer.dilation[0] * (c.layer.kernel_size[0] - 1)
            - 1
        )
        % c.layer.stride[0]
        > 0
    ),
}
TRANSPOSE_FACTS: dict[str, Fact] = {
    **FACTS,
    "output_padding": lambda c: max(c.layer.output_padding) > 0,
    "output_padding not below the stride": lambda c: any(
        o >= s for o, s in zip(c.layer.output_padding, c.layer.stride, strict=True)
    ),
}


def sample(
    cases: st.SearchStrategy[Case], number: int, examine: Callable[[Case], None]
) -> list[Case]:
    """Examine `number` sampled cases; returns those that differ in configuration or shape."""
    seen: dict[tuple[Layer, tuple[int, ...]], Case] = {}

    @settings(max_examples=number)
    @given(cases)
    def run(case: Case) -> None:
        seen[case.layer, case.shape] = case
        examine(case)

    run()
    return list(seen.values())


@pytest.mark.filterwarnings(SAME_COPY)
@pytest.mark.parametrize(
    ("cases", "facts"),
    [
        pytest.param(conv_cases(), CONV_FACTS, id="conv2d"),
        pytest.param(transpose_cases(), TRANSPOSE_FACTS, id="transpose_conv2d"),
    ],
)
def test_output_and_gradients_equal_torch_in_float64_on_sampled_configurations(
    cases: st.SearchStrategy[Case], facts: dict[str, Fact], device: torch.device
) -> None:
    number = 800 if device.type == "cpu" else 160  # cuDNN plans each anew
    seen = sample(cases, number, lambda case: check(case, device, dtype=torch.float64, bound=1e-10))
    kernels = [KERNELS[type(case.layer)] for case in seen]
    inputs = [torch.empty(case.shape, device=device) for case in seen]
    matches = [kernel_of(k, c.layer, [x]) for k, c, x in zip(kernels, seen, inputs, strict=True)]
    assert len(seen) >= 3 * number // 8
    assert sum(match is not None for match in matches) >= 3 * number // 8
    counts = {name: sum(fact(case) for case in seen) for name, fact in facts.items()}
    assert min(counts.values()) >= number // 100, counts


@pytest.mark.filterwarnings(SAME_COPY)
@pytest.mark.parametrize("cases", [conv_cases(), transpose_cases()], ids=["conv2d", "transposed"])
def test_output_and_gradients_equal_torch_in_float32(
    cases: st.SearchStrategy[Case], device: torch.device
) -> None:
    bound = 1e-3 if device.type == "cpu" else 1e-2  # cuDNN multiplies in TF32 by default
    seen = sample(cases, 100, lambda case: check(case, device, dtype=torch.float32, bound=bound))
    assert len(seen) >= 60


@pytest.mark.filterwarnings(SAME_COPY)
@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(out_channels=4, kernel_size=2, stride=2, groups=2),
        Conv2d(out_channels=3, kernel_size=(2, 3), padding="same"),
        TransposeConv2d(out_channels=4, kernel_size=3, stride=2, padding=1, output_padding=1),
        TransposeConv2d(out_channels=2, kernel_size=2, stride=2, groups=2),
    ],
)
def test_an_empty_batch_is_a_batch(layer: Conv2d | TransposeConv2d, device: torch.device) -> None:
    check(Case(layer, (0, 2, 5, 4)), device, dtype=torch.float64, bound=0.0)


@pytest.mark.parametrize(
    ("layer", "matches"),
    [
        (Conv2d(out_channels=1, kernel_size=3, padding="same"), True),
        (Conv2d(out_channels=1, kernel_size=(3, 1), dilation=(3, 1), padding="same"), True),
        (Conv2d(out_channels=1, kernel_size=2, dilation=2, padding="same"), True),
        (Conv2d(out_channels=1, kernel_size=2, padding="same"), False),
        (Conv2d(out_channels=1, kernel_size=(3, 4), padding="same"), False),
        (Conv2d(out_channels=1, kernel_size=(4, 3), padding="valid"), True),
    ],
)
def test_aten_kernel_leaves_uneven_same_padding_to_the_reference(
    layer: Conv2d, matches: bool
) -> None:
    assert (kernel_of(AtenConv2d, layer, [torch.zeros(1, 1, 9, 9)]) is not None) is matches


@pytest.mark.parametrize(
    ("layer", "matches"),
    [
        (Conv2d(out_channels=4, kernel_size=(2, 1), dilation=3, padding=(2, 1)), False),
        (Conv2d(out_channels=4, kernel_size=2, dilation=2, padding=(2, 3)), False),
        (Conv2d(out_channels=4, kernel_size=2, dilation=2, padding=2), True),
        (Conv2d(out_channels=4, kernel_size=1, padding=1), True),
        (TransposeConv2d(out_channels=4, kernel_size=(2, 1), dilation=2, padding=(2, 1)), False),
        (TransposeConv2d(out_channels=4, kernel_size=2, dilation=2, padding=2), True),
        (TransposeConv2d(out_channels=4, kernel_size=(1, 2), dilation=3, padding=(1, 0)), False),
    ],
)
def test_aten_kernel_leaves_dilated_places_outside_the_image_to_the_reference_on_the_cpu(
    layer: Layer, matches: bool
) -> None:
    # torch.nn.functional.conv2d itself crashes on the first of these, with a bias and channels_last
    kernel = kernel_of(KERNELS[type(layer)], layer, [torch.zeros(1, 4, 9, 9)])
    assert (kernel is not None) is matches


@pytest.mark.parametrize(
    ("layer", "size", "matches"),
    [
        (Conv2d(out_channels=4, kernel_size=3, padding=1), 8, True),
        (Conv2d(out_channels=4, kernel_size=3, padding=1), 5, False),
        (Conv2d(out_channels=4, kernel_size=2, stride=2), 10, False),
        (Conv2d(out_channels=4, kernel_size=3, dilation=2), 16, False),
        (TransposeConv2d(out_channels=4, kernel_size=2, stride=2), 8, True),
        (TransposeConv2d(out_channels=4, kernel_size=2, stride=2), 4, False),
        (TransposeConv2d(out_channels=4, kernel_size=2, dilation=(1, 2)), 8, False),
    ],
)
def test_aten_kernel_leaves_bfloat16_that_onednn_garbles_to_the_reference_on_the_cpu(
    layer: Layer, size: int, matches: bool
) -> None:
    x = torch.zeros(1, 4, size, size, dtype=torch.bfloat16)
    assert (kernel_of(KERNELS[type(layer)], layer, [x]) is not None) is matches
    assert kernel_of(KERNELS[type(layer)], layer, [x.float()]) is not None


@pytest.mark.parametrize(
    "case",
    [
        Case(
            Conv2d(out_channels=2, kernel_size=(1, 2), groups=2, bias=False),
            (1, 4, 1, 2),
            ("reversed", "channels_last", "contiguous"),
        ),
        Case(
            Conv2d(out_channels=1, kernel_size=(1, 2)),
            (2, 3, 4, 5),
            ("channels_last", "reversed", "contiguous"),
        ),
    ],
    ids=["weight gradient permuted by torch", "weight gradient refused by torch"],
)
def test_any_stride_of_an_axis_of_size_1_is_accepted(case: Case, device: torch.device) -> None:
    check(case, device, dtype=torch.float64, bound=1e-10)


def test_padding_may_cut_into_what_output_padding_adds(device: torch.device) -> None:
    # one pixel becomes five with output_padding 4; padding 2 leaves the third, which nothing reaches
    layer = TransposeConv2d(
        out_channels=1, kernel_size=1, stride=(5, 1), padding=(2, 0), output_padding=(4, 0)
    )
    check(Case(layer, (2, 1, 1, 3)), device, dtype=torch.float64, bound=0.0)
    weight, bias = torch.ones(1, 1, 1, 1), torch.tensor([0.5])
    assert layer.forward(torch.ones(1, 1, 1, 2), weight, bias).tolist() == [[[[0.5, 0.5]]]]


# The paper's worked examples, with numbers in the place of its symbols:
#
#       [x11 x12 x13]   [1 2 0]        [w11 w12]   [1 -1]
#   x = [x21 x22 x23] = [3 1 2]    w = [w21 w22] = [2  3]    b = 5
#       [x31 x32 x33]   [0 4 1]

X = [[1.0, 2.0, 0.0], [3.0, 1.0, 2.0], [0.0, 4.0, 1.0]]
W = [[1.0, -1.0], [2.0, 3.0]]


def image(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def both(layer: Conv2d | TransposeConv2d, x: Tensor) -> list[Layer]:
    kernel = kernel_of(KERNELS[type(layer)], layer, [x])
    assert kernel is not None
    return [layer, kernel]


def test_worked_example_of_the_columns_under_a_2x2_kernel() -> None:
    # One column for each place of the kernel, one row for each of its weights.
    columns = [
        [1.0, 2.0, 3.0, 1.0],  # w11 meets x11 x12 x21 x22
        [2.0, 0.0, 1.0, 2.0],  # w12 meets x12 x13 x22 x23
        [3.0, 1.0, 0.0, 4.0],  # w21 meets x21 x22 x31 x32
        [1.0, 2.0, 4.0, 1.0],  # w22 meets x22 x23 x32 x33
    ]
    layer = Conv2d(out_channels=1, kernel_size=2)
    assert torch.equal(layer.unfold(image(X), 1), image(columns))


def test_worked_example_of_a_convolution() -> None:
    layer, bias = Conv2d(out_channels=1, kernel_size=2), torch.tensor([5.0], dtype=torch.float64)
    # y11 = w11 x11 + w12 x12 + w21 x21 + w22 x22 + b = 1 - 2 + 6 + 3 + 5
    # y12 = w11 x12 + w12 x13 + w21 x22 + w22 x23 + b = 2 - 0 + 2 + 6 + 5
    # y21 = w11 x21 + w12 x22 + w21 x31 + w22 x32 + b = 3 - 1 + 0 + 12 + 5
    # y22 = w11 x22 + w12 x23 + w21 x32 + w22 x33 + b = 1 - 2 + 8 + 3 + 5
    y = [[13.0, 15.0], [19.0, 15.0]]
    g = [[1.0, 2.0], [-1.0, 3.0]]
    # dw11 = g11 x11 + g12 x12 + g21 x21 + g22 x22 = 1 + 4 - 3 + 3
    # dw12 = g11 x12 + g12 x13 + g21 x22 + g22 x23 = 2 + 0 - 1 + 6
    # dw21 = g11 x21 + g12 x22 + g21 x31 + g22 x32 = 3 + 2 - 0 + 12
    # dw22 = g11 x22 + g12 x23 + g21 x32 + g22 x33 = 1 + 4 - 4 + 3
    grad_weight = [[5.0, 7.0], [17.0, 4.0]]
    # dx11 = g11 w11 = 1      dx12 = g11 w12 + g12 w11 = -1 + 2       dx13 = g12 w12 = -2
    # dx21 = g11 w21 + g21 w11 = 2 - 1
    # dx22 = g11 w22 + g12 w21 + g21 w12 + g22 w11 = 3 + 4 + 1 + 3    dx23 = g12 w22 + g22 w12 = 6 - 3
    # dx31 = g21 w21 = -2     dx32 = g21 w22 + g22 w21 = -3 + 6       dx33 = g22 w22 = 9
    grad_x = [[1.0, 1.0, -2.0], [1.0, 11.0, 3.0], [-2.0, 3.0, 9.0]]
    grad_bias = [5.0]  # g11 + g12 + g21 + g22 = 1 + 2 - 1 + 3
    for implementation in both(layer, image(X)):
        assert torch.equal(implementation.forward(image(X), image(W), bias), image(y))
        grads = implementation.backward(grad_y=image(g), x=image(X), weight=image(W), wanted=ALL)
        assert torch.equal(grads[0], image(grad_x))
        assert torch.equal(grads[1], image(grad_weight))
        assert grads[2].tolist() == grad_bias


def test_worked_example_of_a_transposed_convolution_with_stride_1() -> None:
    layer, bias = TransposeConv2d(out_channels=1, kernel_size=2), torch.tensor([5.0]).double()
    x = [[1.0, 2.0], [-1.0, 3.0]]
    # Each pixel adds its multiple of the kernel:  y11 = x11 w11 + b = 1 + 5,
    # y12 = x11 w12 + x12 w11 + b = -1 + 2 + 5,    y13 = x12 w12 + b = -2 + 5,
    # y21 = x11 w21 + x21 w11 + b = 2 - 1 + 5,
    # y22 = x11 w22 + x12 w21 + x21 w12 + x22 w11 + b = 3 + 4 + 1 + 3 + 5,
    # y23 = x12 w22 + x22 w12 + b = 6 - 3 + 5,     y31 = x21 w21 + b = -2 + 5,
    # y32 = x21 w22 + x22 w21 + b = -3 + 6 + 5,    y33 = x22 w22 + b = 9 + 5
    y = [[6.0, 6.0, 3.0], [6.0, 16.0, 8.0], [3.0, 8.0, 14.0]]
    g = X
    # dx11 = w11 g11 + w12 g12 + w21 g21 + w22 g22 = 1 - 2 + 6 + 3
    # dx12 = w11 g12 + w12 g13 + w21 g22 + w22 g23 = 2 - 0 + 2 + 6
    # dx21 = w11 g21 + w12 g22 + w21 g31 + w22 g32 = 3 - 1 + 0 + 12
    # dx22 = w11 g22 + w12 g23 + w21 g32 + w22 g33 = 1 - 2 + 8 + 3
    grad_x = [[8.0, 10.0], [14.0, 10.0]]
    # dw11 = x11 g11 + x12 g12 + x21 g21 + x22 g22 = 1 + 4 - 3 + 3
    # dw12 = x11 g12 + x12 g13 + x21 g22 + x22 g23 = 2 + 0 - 1 + 6
    # dw21 = x11 g21 + x12 g22 + x21 g31 + x22 g32 = 3 + 2 - 0 + 12
    # dw22 = x11 g22 + x12 g23 + x21 g32 + x22 g33 = 1 + 4 - 4 + 3
    grad_weight = [[5.0, 7.0], [17.0, 4.0]]
    grad_bias = [14.0]  # 1 + 2 + 0 + 3 + 1 + 2 + 0 + 4 + 1
    for implementation in both(layer, image(x)):
        assert torch.equal(implementation.forward(image(x), image(W), bias), image(y))
        grads = implementation.backward(grad_y=image(g), x=image(x), weight=image(W), wanted=ALL)
        assert torch.equal(grads[0], image(grad_x))
        assert torch.equal(grads[1], image(grad_weight))
        assert grads[2].tolist() == grad_bias


def test_worked_example_of_a_transposed_convolution_with_stride_2() -> None:
    layer, bias = (
        TransposeConv2d(out_channels=1, kernel_size=2, stride=2),
        torch.tensor([5.0]).double(),
    )
    x = [[1.0, 2.0], [-1.0, 3.0]]
    # The multiples of the kernel lie side by side: x11 w above left, x12 w above right, and so on.
    y = [
        [6.0, 4.0, 7.0, 3.0],  #   x11 w11 + b, x11 w12 + b, x12 w11 + b, x12 w12 + b
        [7.0, 8.0, 9.0, 11.0],  #  x11 w21 + b, x11 w22 + b, x12 w21 + b, x12 w22 + b
        [4.0, 6.0, 8.0, 2.0],  #   x21 w11 + b, x21 w12 + b, x22 w11 + b, x22 w12 + b
        [3.0, 2.0, 11.0, 14.0],  # x21 w21 + b, x21 w22 + b, x22 w21 + b, x22 w22 + b
    ]
    g = [
        [1.0, 0.0, 2.0, 1.0],
        [0.0, 3.0, -1.0, 1.0],
        [2.0, 1.0, 0.0, 1.0],
        [1.0, -2.0, 3.0, 0.0],
    ]
    # dx11 = w11 g11 + w12 g12 + w21 g21 + w22 g22 = 1 - 0 + 0 + 9
    # dx12 = w11 g13 + w12 g14 + w21 g23 + w22 g24 = 2 - 1 - 2 + 3
    # dx21 = w11 g31 + w12 g32 + w21 g41 + w22 g42 = 2 - 1 + 2 - 6
    # dx22 = w11 g33 + w12 g34 + w21 g43 + w22 g44 = 0 - 1 + 6 + 0
    grad_x = [[10.0, 2.0], [-3.0, 5.0]]
    # dw11 = x11 g11 + x12 g13 + x21 g31 + x22 g33 = 1 + 4 - 2 + 0
    # dw12 = x11 g12 + x12 g14 + x21 g32 + x22 g34 = 0 + 2 - 1 + 3
    # dw21 = x11 g21 + x12 g23 + x21 g41 + x22 g43 = 0 - 2 - 1 + 9
    # dw22 = x11 g22 + x12 g24 + x21 g42 + x22 g44 = 3 + 2 + 2 + 0
    grad_weight = [[3.0, 4.0], [6.0, 7.0]]
    grad_bias = [13.0]  # (1 + 0 + 2 + 1) + (0 + 3 - 1 + 1) + (2 + 1 + 0 + 1) + (1 - 2 + 3 + 0)
    for implementation in both(layer, image(x)):
        assert torch.equal(implementation.forward(image(x), image(W), bias), image(y))
        grads = implementation.backward(grad_y=image(g), x=image(x), weight=image(W), wanted=ALL)
        assert torch.equal(grads[0], image(grad_x))
        assert torch.equal(grads[1], image(grad_weight))
        assert grads[2].tolist() == grad_bias


@pytest.mark.parametrize(
    ("layer", "module"),
    [
        (
            Conv2d(out_channels=6, kernel_size=(3, 2), groups=2),
            torch.nn.Conv2d(4, 6, (3, 2), groups=2),
        ),
        (
            TransposeConv2d(out_channels=6, kernel_size=(3, 2), groups=2),
            torch.nn.ConvTranspose2d(4, 6, (3, 2), groups=2),
        ),
    ],
)
def test_parameters_have_the_shapes_and_the_range_of_torch(
    layer: Layer, module: torch.nn.Module
) -> None:
    parameters = layer.parameters({"x": Spec((1, 4, 8, 8))})
    fan_in = math.prod(module.weight.shape[1:])
    for name, parameter in module.named_parameters():
        assert parameters[name].shape == tuple(parameter.shape)
        # torch draws from kaiming_uniform with a = sqrt(5), which is U(-b, b), b = 1 / sqrt(fan_in)
        assert parameters[name].initializer == Uniform(1 / math.sqrt(fan_in))
        assert float(parameter.detach().abs().max()) <= 1 / math.sqrt(fan_in)


@pytest.mark.parametrize("layer_type", [Conv2d, TransposeConv2d])
def test_channels_that_do_not_fit_are_errors(layer_type: type[Layer]) -> None:
    def bind(layer: Layer, *shape: int) -> None:
        bind_inputs(layer, [Spec(shape)], torch.float32)

    with pytest.raises(GraphError, match=r"expected 4 input channels, got 3. Set in_channels: 3"):
        bind(layer_type(in_channels=4, out_channels=1, kernel_size=1), 1, 3, 8, 8)
    with pytest.raises(GraphError, match=r"groups \(2\) must divide the input channels \(3\)"):
        bind(layer_type(out_channels=2, kernel_size=1, groups=2), 1, 3, 8, 8)
    with pytest.raises(GraphError, match=r"and the output channels \(3\)"):
        bind(layer_type(out_channels=3, kernel_size=1, groups=2), 1, 4, 8, 8)
    with pytest.raises(GraphError, match="expected an input N x C x H x W, got 4x8x8 float32"):
        bind(layer_type(out_channels=3, kernel_size=1), 4, 8, 8)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("size", "padded"), [((4, 4), "4x6"), ((4, 0), "4x2"), ((9, 0), "9x2")])
def test_kernel_larger_than_the_padded_input_is_an_error(
    size: tuple[int, int], padded: str, device: str
) -> None:
    layer = Conv2d(out_channels=1, kernel_size=(3, 3), dilation=(2, 1), padding=(0, 1))
    message = f"the kernel spans 5x3, more than the padded input of {padded}"
    x, weight = torch.zeros(1, 1, *size, device=device), torch.zeros(1, 1, 3, 3, device=device)
    with pytest.raises(GraphError, match=message):
        layer.forward(x, weight, None)


def test_padding_that_leaves_nothing_of_a_transposed_convolution_is_an_error() -> None:
    layer = TransposeConv2d(out_channels=1, kernel_size=2, padding=(0, 2))
    with pytest.raises(GraphError, match=r"padding \(0, 2\) leaves nothing of an output of 4x4"):
        layer.forward(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 2, 2), None)
    assert layer.forward(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 2), None).shape[3] == 1
    layer = TransposeConv2d(out_channels=1, kernel_size=2, padding=(2, 0))
    with pytest.raises(GraphError, match=r"padding \(2, 0\) leaves nothing"):
        layer.forward(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 2, 2), None)


@pytest.mark.parametrize(
    ("layer_type", "options", "message"),
    [
        (Conv2d, {"padding": "same", "stride": 2}, "padding: 'same' needs stride 1"),
        (Conv2d, {"padding": -1}, r"padding.*: expected .*greater than or equal to 0, found -1"),
        (Conv2d, {"padding": "reflect"}, "padding"),
        (Conv2d, {"stride": 0}, r"stride.*: expected .*greater than 0, found 0"),
        (Conv2d, {"stride": (1, 2, 3)}, "stride"),
        (Conv2d, {"dilation": 1.5}, "dilation"),
        (Conv2d, {"groups": 0}, "groups: expected .*greater than 0, found 0"),
        (Conv2d, {"output_padding": 1}, "output_padding: unknown field"),
        (
            TransposeConv2d,
            {"output_padding": (0, 1)},
            r"output_padding: expected less than stride or dilation, found \(0, 1\)",
        ),
        (TransposeConv2d, {"stride": 3, "dilation": 2, "output_padding": 3}, "output_padding"),
        (TransposeConv2d, {"padding": "same"}, "padding"),
    ],
)
def test_wrong_arguments_are_errors(
    layer_type: type[Layer], options: dict[str, object], message: str
) -> None:
    with pytest.raises(DescriptionError, match=message):
        layer_type(out_channels=1, kernel_size=1, **options)


def test_missing_arguments_are_named_together() -> None:
    with pytest.raises(DescriptionError) as caught:
        Conv2d()
    assert {problem.path for problem in caught.value.problems} == {"out_channels", "kernel_size"}


def test_upsampling_is_another_name_of_transpose_conv2d(tmp_path: Path) -> None:
    fields = {"out_channels": 4, "kernel_size": 2, "stride": 2}
    one, other = (
        Model({"layers": [{"id": "up", name: fields}]})
        for name in ("upsampling", "transpose_conv2d")
    )
    x = torch.linspace(-1, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert torch.equal(one.predict(x), other.predict(x))
    found = [model.plan((2, 3, 4, 5)).steps[0].call.layer for model in (one, other)]
    assert found[0] == found[1]
    program = one.compile((2, 3, 4, 5), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
    program.save(tmp_path / "up.safetensors")
    loaded = Model.load(tmp_path / "up.safetensors")
    assert loaded.description.layers[0].layer == "upsampling"
    assert torch.equal(loaded.predict(x), program.predict(x))

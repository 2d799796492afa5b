"""The GEMM kernels: their operators against torch in float64, and where they are used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graphnet_cpu import gemm_operators as operators
from graphnet_cpu.gemm import GemmConv2d, GemmConv2dReLU, GemmTransposeConv2d
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphnet.builtin import Conv2d, TransposeConv2d
from graphnet.sdk import Layer, Site, Spec
from graphnet.system import Native
from tests.support.oracle import random_tensor, relative_error

if problem := operators.CPP.problem():
    pytest.skip(f"the kernels cannot be compiled here: {problem}", allow_module_level=True)

BOUNDS = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 1e-2}
rows = st.one_of(st.integers(0, 60), st.integers(180, 420))
columns = st.one_of(st.integers(1, 60), st.integers(90, 140))


def matrices(
    sizes: tuple[int, int, int], dtype: torch.dtype, *, by_column: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (M, K), w (K, N) in either order in memory, bias (N,) and a gradient (M, N)."""
    m, k, n = sizes
    x = random_tensor((m, k), seed=0, dtype=dtype)
    w = random_tensor((n, k), seed=1, dtype=dtype).t() if by_column else None
    w = random_tensor((k, n), seed=1, dtype=dtype) if w is None else w
    bias = random_tensor((n,), seed=2, dtype=dtype)
    return x, w, bias, random_tensor((m, n), seed=3, dtype=dtype)


@settings(max_examples=300)
@given(
    st.tuples(rows, columns, columns),
    st.sampled_from(list(BOUNDS)),
    st.tuples(*[st.booleans()] * 6),
)
def test_products_and_gradients_are_within_rounding_of_float64(
    sizes: tuple[int, int, int],
    dtype: torch.dtype,
    flags: tuple[bool, bool, bool, bool, bool, bool],
) -> None:
    by_column, relu, with_bias, wants_x, wants_bias, turned = flags
    m, k, n = sizes
    if dtype == torch.bfloat16:
        k, n = k + k % 2, n + n % 2
    x, w, bias, grad = matrices((m, k, n), dtype, by_column=by_column)
    y = operators.affine(x, w, bias if with_bias else None, relu)
    exact = x.double() @ w.double() + (bias.double() if with_bias else 0.0)
    exact = exact.relu() if relu else exact
    assert y.dtype == dtype
    assert relative_error(y.double(), exact) < BOUNDS[dtype]

    grad_x, grad_w, grad_bias = operators.affine_gradients(
        grad, x, w, y if relu else None, wants_x, wants_bias, turned
    )
    masked = grad.double() * (y > 0) if relu else grad.double()
    if wants_x:
        assert relative_error(grad_x.double(), masked @ w.double().t()) < BOUNDS[dtype]
    else:
        assert grad_x.numel() == 0
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert grad_w.dtype == grad_bias.dtype == wide
    exact_w = masked.t() @ x.double() if turned else x.double().t() @ masked
    assert relative_error(grad_w.double(), exact_w) < BOUNDS[wide]
    if wants_bias:
        assert relative_error(grad_bias.double(), masked.sum(0)) < BOUNDS[wide]
    else:
        assert grad_bias.numel() == 0


@pytest.mark.usefixtures("threads")
def test_product_has_the_same_bits_for_each_number_of_threads() -> None:
    x, w, bias, grad = matrices((433, 36, 50), torch.float32, by_column=True)
    products, gradients = [], []
    for count in (1, 2, 2, 5):
        torch.set_num_threads(count)
        products.append(operators.affine(x, w, bias, True))
        gradients.append(operators.affine_gradients(grad, x, w, None, True, True, True))
    assert all(torch.equal(product, products[0]) for product in products)
    assert all(map(torch.equal, gradients[1], gradients[2]))
    for one in gradients:  # more threads add in another order
        assert relative_error(one[1], gradients[0][1]) < 1e-6


def test_bfloat16_results_without_the_instruction_are_within_rounding(tmp_path: Path) -> None:
    """The plain form of a pair's product, compiled without the instruction, to the last digits."""
    folder = Path(operators.__file__).parent
    for name in ("gemm.cpp", "products.h", "vectors.h"):
        text = (folder / name).read_text().replace("__AVX512BF16__", "NO_SUCH_INSTRUCTION")
        (tmp_path / name).write_text(text)
    x, w, bias, grad = matrices((211, 36, 50), torch.bfloat16, by_column=True)
    expected = [
        operators.affine(x, w, bias, True),
        *operators.affine_gradients(grad, x, w, None, True, True, True),
    ]
    there = operators.CPP
    try:
        operators.CPP = Native(tmp_path / "gemm.cpp")
        found = [
            operators.affine(x, w, bias, True),
            *operators.affine_gradients(grad, x, w, None, True, True, True),
        ]
    finally:
        operators.CPP = there
    for mine, theirs in zip(found, expected, strict=True):
        bound = 8e-3 if mine.dtype == torch.bfloat16 else 1e-5
        assert relative_error(mine.float(), theirs.float()) < bound


def site(layer: Layer, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Site:
    specs = {"x": Spec(shape, dtype)}
    weight = layer.parameters(specs)["weight"]
    assert weight is not None
    return Site((layer,), {**specs, "weight": Spec(weight.shape, dtype)}, torch.device("cpu"))


PATCH = Conv2d(out_channels=8, kernel_size=(2, 2), stride=(2, 2))
UP = TransposeConv2d(out_channels=8, kernel_size=(2, 2), stride=(2, 2))


def test_patch_layers_with_enough_rows_select_gemm_kernels() -> None:
    assert GemmConv2d.match(site(PATCH, (2, 4, 20, 12))) == GemmConv2d(kernel_size=(2, 2))
    assert GemmConv2d.match(site(PATCH, (2, 4, 6, 6))) is None
    assert GemmTransposeConv2d.match(site(UP, (2, 4, 6, 8)))
    assert GemmTransposeConv2d.match(site(UP, (2, 4, 6, 6))) is None
    overlapping = Conv2d(out_channels=8, kernel_size=(3, 3), stride=(2, 2))
    assert GemmConv2d.match(site(overlapping, (2, 4, 33, 33))) is None


def test_gemm_kernels_refuse_what_they_cannot_compute() -> None:
    assert GemmConv2d.match(site(PATCH, (2, 4, 20, 12), torch.float16)) is None
    odd = Conv2d(out_channels=7, kernel_size=(2, 2), stride=(2, 2))
    assert GemmConv2d.match(site(odd, (2, 4, 20, 12)))
    assert GemmConv2d.match(site(odd, (2, 4, 20, 12), torch.bfloat16)) is None


def test_gemm_kernels_refuse_everything_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(operators.CPP), "problem", lambda self: "there is no compiler")
    assert GemmConv2d.match(site(PATCH, (2, 4, 20, 12))) is None


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_nan_passes_through_relu_as_in_torch(dtype: torch.dtype) -> None:
    x, w, bias, grad = matrices((100, 4, 6), dtype, by_column=True)
    x[7, 1] = float("nan")
    y = operators.affine(x, w, bias, True)
    assert bool(y[7].isnan().all())
    assert not bool(y[:7].isnan().any())
    grad_x, _, _ = operators.affine_gradients(grad, x, w, y, True, True, True)
    masked = torch.ops.aten.threshold_backward(grad, y, 0)
    assert bool(grad_x[7].any())
    assert relative_error(grad_x.double(), masked.double() @ w.double().t()) < BOUNDS[dtype]


def test_results_of_the_operators_require_no_grad() -> None:
    x = torch.ones(100, 4, requires_grad=True)
    with torch.enable_grad():
        assert not operators.affine(x, torch.ones(4, 2), None, False).requires_grad


def test_gemm_relu_kernel_replaces_relu_of_a_convolution() -> None:
    assert GemmConv2dReLU.replaces == "relu(conv2d(x, weight, bias))"

"""The smooth activations far from 0, where formulas overflow or cancel, and their fields.

Their values and gradients elsewhere are in test_activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from graphnet.builtin.kernels.aten.activation import AtenSoftplus
from graphnet.builtin.layers.smooth import GELU, Softplus
from graphnet.errors import DescriptionError
from graphnet.sdk import Layer
from tests.builtin.layers.test_activation import ALL, Function, backward, floating, implementations
from tests.support.oracle import kernel_of


@implementations("gelu", "gelu tanh", "silu", "softplus", "tanh")
@floating
def test_far_from_0_value_and_slope_are_those_of_the_limits(
    layer: Layer, function: Function, dtype: torch.dtype, device: torch.device
) -> None:
    for far in (800.0, 1e6, 1e18):
        x = torch.tensor([-far, far], dtype=dtype, device=device)
        y = layer.forward(x)
        limits, slopes = ([-1.0, 1.0], [0.0, 0.0]) if function is torch.tanh else ([0, far], [0, 1])
        assert y.tolist() == pytest.approx(limits, rel=1e-6)
        assert backward(layer, torch.ones_like(x), x, y).tolist() == slopes


@pytest.mark.parametrize("name", ["gelu tanh", "gelu", "silu", "softplus"])
def test_reference_is_finite_for_every_finite_number(name: str, device: torch.device) -> None:
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([-largest, largest], device=device)
    layer = ALL[name][0]
    y = layer.forward(x)
    assert y.tolist() == [0.0, pytest.approx(largest)]
    assert backward(layer, torch.ones_like(x), x, y).tolist() == [0.0, 1.0]


EXACT: dict[str, Callable[[float], float]] = {
    "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
    "gelu tanh": lambda x: x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
}


@pytest.mark.parametrize("name", EXACT)
def test_reference_keeps_relative_accuracy_for_negative_inputs(
    name: str, device: torch.device
) -> None:
    x = torch.linspace(-15.0, -0.1, 150, dtype=torch.float64, device=device)
    exact = torch.tensor([EXACT[name](v) for v in x.tolist()], dtype=x.dtype)
    assert ((ALL[name][0].forward(x).cpu() - exact).abs() / exact.abs()).max() <= 1e-12


def test_softplus_without_a_threshold_overflows_nowhere(device: torch.device) -> None:
    layer = Softplus(threshold=1e9)
    x = torch.tensor([-1e5, 0.0, 1e5], device=device)
    assert layer.forward(x).tolist() == [0.0, pytest.approx(math.log(2)), 1e5]
    assert layer.backward(torch.ones_like(x), x).tolist() == [0.0, 0.5, 1.0]
    assert kernel_of(AtenSoftplus, layer, [x]) is None  # torch's is infinite there


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (lambda: Softplus(beta=0.0), "beta"),
        (lambda: GELU(approximate="erf"), "approximate"),  # type: ignore[arg-type]
    ],
)
def test_field_out_of_range_is_refused(made: Callable[[], Layer], field: str) -> None:
    with pytest.raises(DescriptionError, match=field):
        made()

"""Inputs that are no tensors of floating point are refused by everything that takes an input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet import nn
from graphnet.bridges import as_torch_module
from graphnet.errors import DataError, GraphnetError, InputError
from graphnet.inspection import Gradients
from graphnet.model import Model
from graphnet.sdk import FLOATING, Layer, as_unit

SHAPE = (1, 3, 4, 4)
DESCRIPTION = {
    "input": {"channels": 3},
    "layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}, "relu"],
}
NO_FLOATS = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e5m2,
)
NO_TENSORS = {
    "array": (
        np.zeros(SHAPE, np.uint8),
        r"ndarray of 1x3x4x4 uint8\. .*from_numpy\(array\).* / 255",
    ),
    "floats": (np.zeros(SHAPE, np.float32), r"ndarray of 1x3x4x4 float32\. .*from_numpy\(array\)"),
    "list": ([[1.0, 2.0]], r"a list\. .*torch\.tensor\(values"),
    "number": (1.0, r"a float\. "),
    "nothing": (None, r"a NoneType\. "),
}


def model() -> Model:
    return Model(DESCRIPTION)


def program() -> gn.Program:
    return model().compile(SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")


def sequential() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())


TAKERS: dict[str, Callable[[Any], object]] = {
    "Model.predict": lambda x: model().predict(x),
    "Program.predict": lambda x: program().predict(x),
    "Program.step, input": lambda x: program().step(x, torch.zeros(SHAPE)),
    "Program.step, target": lambda x: program().step(torch.zeros(SHAPE), x),
    "Gradients, input": lambda x: Gradients.of(model(), SHAPE, data=[x, torch.zeros(SHAPE)]),
    "Gradients, target": lambda x: Gradients.of(model(), SHAPE, data=[torch.zeros(SHAPE), x]),
    "nn.Conv2d": lambda x: nn.Conv2d(3, 3, 1)(x),
    "nn.make, first input": lambda x: nn.make("conv2d", out_channels=3, kernel_size=1)(x),
    "nn.ReLU": lambda x: nn.ReLU()(x),
    "nn.ReLU.predict": lambda x: nn.ReLU().predict(x),
    "nn.add": lambda x: nn.make("add")(torch.zeros(SHAPE), x),
    "nn.MSE, prediction": lambda x: nn.MSE()(x, torch.zeros(SHAPE)),
    "nn.Sequential": lambda x: sequential()(x),
    "nn.Sequential.predict": lambda x: sequential().predict(x),
    "as_torch_module(Model)": lambda x: as_torch_module(model(), SHAPE)(x),
    "as_torch_module(layer)": lambda x: as_torch_module("relu")(x),
    "as_torch_module(nn)": lambda x: as_torch_module(nn.Conv2d(3, 3, 1))(x),
}

TAKE_ARRAYS = ("Model.predict", "Program.predict")  # tests/model/test_arrays.py


@pytest.mark.parametrize("dtype", NO_FLOATS, ids=str)
@pytest.mark.parametrize("taker", TAKERS)
def test_integers_bools_and_complex_numbers_are_refused(taker: str, dtype: torch.dtype) -> None:
    x = torch.zeros(SHAPE).to(dtype)
    with pytest.raises(GraphnetError) as caught:
        TAKERS[taker](x)
    message = str(caught.value)
    assert isinstance(caught.value, InputError)
    assert str(dtype).removeprefix("torch.") in message
    assert "float32" in message
    todo = "[x.real, x.imag]" if dtype.is_complex else ".float()"
    assert todo in message
    assert ("image.float() / 255" in message) == (dtype == torch.uint8)


@pytest.mark.parametrize(
    ("taker", "found"),
    [
        (taker, found)
        for taker, (found, (x, _)) in itertools.product(TAKERS, NO_TENSORS.items())
        if taker not in TAKE_ARRAYS or not isinstance(x, np.ndarray)
    ],
)
def test_inputs_that_are_no_tensors_are_refused(taker: str, found: str) -> None:
    x, message = NO_TENSORS[found]
    with pytest.raises(InputError, match=message):
        TAKERS[taker](x)


@pytest.mark.parametrize("taker", [name for name in TAKERS if "Program" not in name])
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_floating_point_is_taken(taker: str, dtype: torch.dtype) -> None:
    if "nn" in taker or "torch" in taker or "Gradients" in taker:  # their parameters are float32
        dtype = torch.float32
    TAKERS[taker](torch.zeros(SHAPE, dtype=dtype))


@pytest.mark.parametrize("dtype", [*NO_FLOATS, "float33"], ids=str)
def test_parameters_of_other_dtypes_are_refused(dtype: Any) -> None:
    made = model()
    makers: list[Callable[[], object]] = [
        lambda: made.compile(
            SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu", dtype=dtype
        ),
        lambda: made.plan(SHAPE, dtype=dtype),
        lambda: made.graph(SHAPE, dtype=dtype),
        lambda: made.tiling(SHAPE, memory="1MiB", dtype=dtype),
        lambda: nn.Conv2d(3, 3, 1, dtype=dtype),
        lambda: nn.ReLU(dtype=dtype),
        lambda: as_torch_module("relu", dtype=dtype),
        lambda: as_torch_module(made, SHAPE, dtype=dtype),
    ]
    for make in makers:
        with pytest.raises(
            ValueError, match=r"dtype: expected float32, float64, bfloat16 or float16, (got|found) "
        ):
            make()


def test_predicting_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="expected one tensor or more, got none"):
        model().predict()


class Pick(Layer):
    """x[index]: the rows of x, by integers."""

    nondifferentiable: ClassVar[tuple[str, ...]] = ("index",)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return x.index_select(0, index)

    def backward(self, grad_y: Tensor, index: Tensor, specs: Any) -> tuple[Tensor, None]:
        zeros = torch.zeros(specs["x"].shape, dtype=grad_y.dtype, device=grad_y.device)
        return zeros.index_add(0, index, grad_y), None


def test_an_input_that_gets_no_gradient_may_be_of_any_dtype() -> None:
    x, index = torch.arange(6.0).reshape(3, 2), torch.tensor([2, 0])
    expected = torch.tensor([[4.0, 5.0], [0.0, 1.0]])
    module = nn.Module(Pick())
    assert torch.equal(module(x, index), expected)
    assert torch.equal(module.backward(torch.ones(2, 2)), torch.tensor([[1.0, 1], [0, 0], [1, 1]]))
    assert torch.equal(as_torch_module(Pick())(x, index), expected)
    with pytest.raises(InputError, match="input 'x': expected a tensor of .* got 3x2 int64"):
        module(x.long(), index)


def test_a_mask_of_bools_goes_into_a_loss() -> None:
    prediction, target = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[3.0, 9.0]]]])
    mask = torch.tensor([[[[True, False]]]])
    loss = nn.make("masked_mse")
    assert float(loss(prediction, target, mask)) == 4.0


def test_data_of_unknown_scale_is_refused() -> None:
    for dtype in (torch.int16, torch.int64, torch.uint16, torch.complex64):
        with pytest.raises(DataError, match=f"found {dtype}. Divide by the largest value"):
            as_unit(torch.zeros(2).to(dtype), torch.float32)
    assert as_unit(torch.tensor([True, False]), torch.float32).tolist() == [1.0, 0.0]

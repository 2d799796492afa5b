"""split, slice and simple_gate against torch, by hand, and in a model that names the outputs."""

from __future__ import annotations

import pytest
import torch

from graphnet.builtin.layers.split import SimpleGate, Slice, Split
from graphnet.errors import GraphError
from graphnet.model import Model
from graphnet.sdk import Spec
from tests.support.oracle import STRIDES, central_differences, random_tensor, relative_error

SHAPE = (4, 6, 2, 8)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize(
    ("layer", "sizes"),
    [(Split(), (3, 3)), (Split(size=1), (1, 5)), (Split(size=5), (5, 1)), (Split(dim=0), (2, 2)),
     (Split(size=3, dim=3), (3, 5)), (Split(dim=-2), (1, 1)), (Split(size=2, dim=-3), (2, 4))],
)  # fmt: skip
def test_split_equals_torch(
    layer: Split, sizes: tuple[int, int], strides: str, device: torch.device
) -> None:
    x = random_tensor(SHAPE, seed=1, strides=strides, device=device)
    specs = {"x": Spec(SHAPE, x.dtype, x.device)}
    leaf = x.clone().requires_grad_()
    parts = torch.split(leaf, sizes, layer.dim)
    found = layer.forward(x)
    assert all(map(torch.equal, found, (part.detach() for part in parts)))
    assert all(part.data_ptr() >= x.data_ptr() and part._base is not None for part in found)
    grads = [random_tensor(part.shape, seed=i, strides=strides) for i, part in enumerate(parts)]
    grads = [grad.to(device) for grad in grads]
    (both,) = torch.autograd.grad(parts, leaf, grads, retain_graph=True)
    assert torch.equal(layer.backward(specs, *grads), both)
    for i in range(2):  # nobody used the other output
        (one,) = torch.autograd.grad(parts[i], leaf, grads[i], retain_graph=True)
        alone = [grad if i == j else None for j, grad in enumerate(grads)]
        assert torch.equal(layer.backward(specs, *alone), one)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Split(), "cannot halve axis 1 of .*, whose size is odd. Set size"),
        (Split(size=3), r"expected more than size \(3\) elements on axis 1"),
        (Split(dim=2), "expected an input with an axis 2"),
        (Split(dim=-3), "expected an input with an axis -3"),
    ],
)
def test_split_refuses_inputs_that_it_cannot_split(layer: Split, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        layer.forward(torch.zeros(2, 3))


def test_outputs_of_a_split_are_named_in_a_model_and_split_again(device: torch.device) -> None:
    """z = a b + c from one tensor of three parts, one of which is used twice."""
    model = Model(
        {
            "input": {"channels": 6},
            "layers": [
                {"id": "three", "conv2d": {"out_channels": 6, "kernel_size": 1}},
                {"id": "a", "split": {"size": 2}},
                {"id": "b", "split": {}, "inputs": ["a.rest"]},
                {"id": "product", "multiply": {}, "inputs": ["a", "b.first"]},
                {"add": {}, "inputs": ["product", "b.rest", "a.first"]},
            ],
        }
    )
    program = model.compile(
        (2, 6, 3, 5), loss="mse", optimizer={"sgd": {"lr": 0.5}}, device=device, dtype=torch.float64
    )
    x, target = (random_tensor((2, c, 3, 5), seed=c, device=device) for c in (6, 2))
    weight, bias = (
        program.weights[f"three.{name}"].clone().requires_grad_() for name in ("weight", "bias")
    )
    one, two, three = torch.nn.functional.conv2d(x, weight, bias).split(2, 1)
    loss = torch.nn.functional.mse_loss(one * two + three + one, target)
    grads = torch.autograd.grad(loss, (weight, bias))
    torch.testing.assert_close(program.step(x, target), loss.detach(), rtol=1e-12, atol=0)
    for name, start, grad in zip(("weight", "bias"), (weight, bias), grads, strict=True):
        expected = start.detach() - 0.5 * grad
        torch.testing.assert_close(program.weights[f"three.{name}"], expected)


def test_slice_by_hand_counts_from_either_end_and_its_gradient_is_zero_elsewhere() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    specs = {"x": Spec((1, 5))}
    for layer, y, grad in [
        (Slice(start=-2), [4.0, 5.0], [0.0, 0.0, 0.0, 10.0, 20.0]),
        (Slice(end=-1, step=3), [1.0, 4.0], [10.0, 0.0, 0.0, 20.0, 0.0]),
        (Slice(start=-9, end=2), [1.0, 2.0], [10.0, 20.0, 0.0, 0.0, 0.0]),
    ]:
        assert layer.forward(x).tolist() == [y]
        assert layer.backward(torch.tensor([[10.0, 20.0]]), specs).tolist() == [grad]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Slice(start=5), "expected an input with elements from 5 to None on axis 1, got the shape"),
        (Slice(dim=2), r"expected an input with an axis 2, got the shape \(1, 5\)"),
    ],
)
def test_slice_refuses_an_axis_without_such_elements(layer: Slice, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        layer.forward(torch.ones(1, 5))


def test_windows_of_split_slice_and_simple_gate() -> None:
    rows = range(-1, 8)
    assert [Split().window(rows, axis) for axis in (0, 1)] == [rows, rows]
    assert [Split(dim=2).window(rows, axis) for axis in (0, 1)] == [None, rows]
    assert [Split(dim=-1).window(rows, axis) for axis in (0, 1)] == [None, None]
    assert [Slice(dim=3).window(rows, axis) for axis in (0, 1)] == [rows, None]
    assert [SimpleGate().window(rows, axis) for axis in (0, 1)] == [rows, rows]


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (3, 4), (1, 2, 7), (0, 2, 1, 1)])
def test_simple_gate_equals_torch(
    shape: tuple[int, ...], strides: str, device: torch.device
) -> None:
    if strides == "channels_last" and len(shape) != 4:
        strides = "contiguous"
    x = random_tensor(shape, seed=1, strides=strides, device=device)
    kept, leaf = x.clone(), x.clone().requires_grad_()
    one, other = leaf.chunk(2, 1)
    y = one * other
    grad_y = random_tensor(y.shape, seed=2, device=device)
    (grad_x,) = torch.autograd.grad(y, leaf, grad_y)
    assert torch.equal(SimpleGate().forward(x), y.detach())
    assert torch.equal(SimpleGate().backward(grad_y, x), grad_x)
    assert torch.equal(x, kept)
    numeric = central_differences(SimpleGate().forward, x.contiguous(), grad_y)
    assert relative_error(grad_x, numeric) <= 1e-8


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4,), ()])
def test_simple_gate_refuses_channels_that_it_cannot_halve(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match="expected an even number of channels on axis 1"):
        SimpleGate().forward(torch.zeros(shape))

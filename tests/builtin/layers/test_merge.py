"""add, multiply, subtract and concat against torch, central differences and by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin.layers.merge import Add, BroadcastAdd, Concat, Multiply, Subtract
from graphnet.errors import DescriptionError, GraphError
from graphnet.sdk import Layer, Spec
from tests.support.oracle import STRIDES, central_differences, random_tensor, relative_error


def specs_of(xs: list[Tensor]) -> dict[str, tuple[Spec, ...]]:
    return {"xs": tuple(Spec(tuple(x.shape), x.dtype, x.device) for x in xs)}


def tensors(
    shapes: list[tuple[int, ...]], device: torch.device, *, strides: tuple[str, ...] = STRIDES[:1]
) -> list[Tensor]:
    return [
        random_tensor(shape, seed=i, strides=strides[i % len(strides)], device=device)
        for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("strides", [STRIDES[:1], STRIDES])
def test_add_of_any_number_equals_torch(
    number: int, strides: tuple[str, ...], device: torch.device
) -> None:
    xs = tensors([(2, 3, 4, 5)] * number, device, strides=strides)
    kept = [x.clone() for x in xs]
    layer, grad_y = Add(), random_tensor((2, 3, 4, 5), seed=9, device=device)
    assert relative_error(layer.forward(*xs), torch.stack(xs).sum(0)) <= 1e-14
    grads = layer.backward(grad_y, specs_of(xs))
    assert isinstance(grads, tuple)
    assert len(grads) == number
    assert all(torch.equal(grad, grad_y) for grad in grads)
    assert all(map(torch.equal, xs, kept))


def test_add_by_hand_keeps_dtype(device: torch.device) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        one, two = torch.tensor([[1.0, -2.0], [0.5, 4.0]]).to(device, dtype).unbind()
        total = Add().forward(one, two, one)
        assert total.tolist() == [2.5, 0.0]
        assert total.dtype == dtype


def test_add_refuses_to_broadcast() -> None:
    with pytest.raises(GraphError, match="expected inputs of one shape, got .*2x3x4x4"):
        Add().forward(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -3])
@pytest.mark.parametrize("strides", [STRIDES[:1], STRIDES])
def test_concat_along_any_axis_equals_torch(
    dim: int, strides: tuple[str, ...], device: torch.device
) -> None:
    shapes = []
    for size in (2, 1, 4):
        shape = [2, 3, 4, 5]
        shape[dim] = size
        shapes.append((shape[0], shape[1], shape[2], shape[3]))
    xs = tensors(shapes, device, strides=strides)
    kept = [x.clone() for x in xs]
    leaves = [x.clone().requires_grad_() for x in xs]
    y = torch.cat(leaves, dim)
    grad_y = random_tensor(y.shape, seed=9, strides=strides[-1], device=device)
    true = torch.autograd.grad(y, leaves, grad_y)
    layer = Concat(dim=dim)
    assert torch.equal(layer.forward(*xs), y.detach())
    grads = layer.backward(grad_y, specs_of(xs))
    assert len(grads) == 3
    assert all(map(torch.equal, grads, true))
    assert all(map(torch.equal, xs, kept))


def test_concat_of_one_tensor_is_that_tensor(device: torch.device) -> None:
    (x,) = tensors([(2, 3, 4, 5)], device)
    assert torch.equal(Concat().forward(x), x)
    (grad,) = Concat().backward(x, specs_of([x]))
    assert torch.equal(grad, x)


def test_concat_joins_channels_by_default() -> None:
    y = Concat().forward(torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 2, 2))
    assert y[0, :, 0, 0].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("layer", [Add(), Concat(dim=2)], ids=["add", "concat"])
def test_gradients_equal_central_differences(layer: Add | Concat, device: torch.device) -> None:
    xs = tensors([(1, 2, 3, 2)] * 3, device)
    grad_y = random_tensor(layer.forward(*xs).shape, seed=9, device=device)
    grads = layer.backward(grad_y, specs_of(xs))
    for i, grad in enumerate(grads):

        def of_one(x: Tensor, i: int = i) -> Tensor:
            return layer.forward(*xs[:i], x, *xs[i + 1 :])

        assert relative_error(grad, central_differences(of_one, xs[i], grad_y)) <= 1e-8


def test_concat_refuses_other_axes_that_differ() -> None:
    message = "expected inputs that differ on axis 1 only, got 1x2x4x4, 1x2x4x5"
    with pytest.raises(GraphError, match=message):
        Concat().forward(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))
    with pytest.raises(GraphError):
        Concat().forward(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(DescriptionError, match="dim: expected"):
        Concat(dim="channels")


BROADCAST = [
    ((2, 3, 4, 5), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (2, 3, 1, 1)),
    ((2, 1, 4, 5), (2, 3, 4, 5)),
    ((2, 1, 4, 1), (1, 3, 1, 5)),
    ((1, 3, 4, 1), (2, 3, 4, 1)),
    ((2, 3, 4), (3, 4)),
    ((4,), (2, 3, 1)),
    ((2, 3), ()),
    ((4,), (1,)),
    ((), ()),
    ((0, 3), (1, 3)),
]


@pytest.mark.parametrize(("one", "two"), BROADCAST)
@pytest.mark.parametrize("strides", ["contiguous", "reversed"])
@pytest.mark.parametrize(
    ("layer", "operator"),
    [(Multiply(), torch.mul), (Subtract(), torch.sub), (BroadcastAdd(), torch.add)],
)
def test_inputs_are_broadcast_as_in_torch_and_gradients_summed_back(
    layer: Layer,
    operator: Callable[[Tensor, Tensor], Tensor],
    one: tuple[int, ...],
    two: tuple[int, ...],
    strides: str,
    device: torch.device,
) -> None:
    x, other = tensors([one, two], device, strides=(strides,))
    kept = x.clone(), other.clone()
    leaves = x.clone().requires_grad_(), other.clone().requires_grad_()
    y = operator(*leaves)
    grad_y = random_tensor(y.shape, seed=9, strides=strides, device=device)
    true = torch.autograd.grad(y, leaves, grad_y)
    specs = dict(zip(("x", "other"), specs_of([x, other])["xs"], strict=True))

    def gradients(*wanted: str) -> tuple[Tensor | None, Tensor | None]:
        given: dict[str, Any] = {"grad_y": grad_y, "x": x, "other": other, "specs": specs}
        given["wanted"] = frozenset(wanted)
        found: tuple[Tensor | None, Tensor | None] = layer.backward(
            **{name: given[name] for name in layer.signature.backward}
        )
        return found

    assert torch.equal(layer.forward(x, other), y.detach())
    grads = gradients("x", "other")
    for grad, expected in zip(grads, true, strict=True):
        assert grad is not None
        assert relative_error(grad, expected) <= 1e-14
    grad_x, none = gradients("x")
    assert none is None
    assert grad_x is not None
    assert torch.equal(grad_x, grads[0])  # type: ignore[arg-type]
    assert gradients("other")[0] is None
    assert all(map(torch.equal, (x, other), kept))


def test_multiply_by_hand_sums_over_the_pixels_that_share_a_gate(device: torch.device) -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]], device=device)
    gate = torch.tensor([10.0, 100.0], device=device).view(1, 2, 1, 1)
    assert Multiply().forward(image, gate).flatten().tolist() == [
        10.0, 20.0, 30.0, 40.0, 500.0, 600.0, 700.0, 800.0,
    ]  # fmt: skip
    wanted = frozenset({"x", "other"})
    grads = Multiply().backward(torch.ones_like(image), image, gate, wanted)
    assert grads[0] is not None
    assert grads[1] is not None
    assert grads[0][0, :, 1, 0].tolist() == [10.0, 100.0]
    assert grads[1].tolist() == [[[[10.0]], [[26.0]]]]  # 1 + 2 + 3 + 4, 5 + 6 + 7 + 8


def test_subtract_by_hand_takes_each_channels_mean_from_its_pixels(device: torch.device) -> None:
    image = torch.tensor([[[[1.0, 3.0]], [[5.0, 6.0]]]], device=device)
    mean = torch.tensor([2.0, 5.0], device=device).view(1, 2, 1, 1)
    assert Subtract().forward(image, mean).flatten().tolist() == [-1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("layer", [Multiply(), Subtract(), BroadcastAdd()])
@pytest.mark.parametrize("other", [(2, 1, 1), (2, 2, 4, 4), (2, 3, 4), (5,)])
def test_shapes_that_do_not_fit_are_refused(
    layer: Multiply | Subtract | BroadcastAdd, other: tuple[int, ...]
) -> None:
    words = "equal from the last axis on, except for sizes of 1, got 2x3x4x4 and "
    with pytest.raises(GraphError, match=words + "x".join(map(str, other))):
        layer.forward(torch.zeros(2, 3, 4, 4), torch.zeros(other))


@pytest.mark.parametrize("layer", [Multiply(), Subtract(), BroadcastAdd()])
def test_window_of_an_elementwise_layer_is_the_pixel_itself(
    layer: Multiply | Subtract | BroadcastAdd,
) -> None:
    assert [layer.window(range(-2, 7), axis) for axis in (0, 1)] == [range(-2, 7)] * 2

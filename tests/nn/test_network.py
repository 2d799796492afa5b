"""Network: modules that read each other's outputs by name, forward and backward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet import nn
from graphnet.errors import InputError

F64 = torch.float64


def branched() -> nn.Network:
    return nn.Network(
        {
            "stem": nn.Conv2d(2, 4, 3, padding=1, dtype=F64),
            "parts": nn.Split(size=1),
            "one": (nn.Sigmoid(), "parts"),
            "rest": (nn.Conv2d(3, 1, 1, dtype=F64), "parts.rest"),
            "both": (nn.Multiply(), "one", "rest"),
            "sum": (nn.Add(), "both", "one", "one", "$side"),
        },
        inputs=["image", "side"],
        outputs=["sum", "rest"],
    )


def by_hand(leaves: list[Tensor], image: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    stem = torch.nn.functional.conv2d(image, leaves[0], leaves[1], padding=1)
    one = stem[:, :1].sigmoid()
    rest = torch.nn.functional.conv2d(stem[:, 1:], leaves[2], leaves[3])
    return one * rest + one + one + side, rest


def test_a_network_adds_the_gradients_of_all_paths() -> None:
    torch.manual_seed(0)
    net = branched()
    assert [name for name, _ in net.named_parameters()] == [
        "stem.weight", "stem.bias", "rest.weight", "rest.bias",
    ]  # fmt: skip
    image = torch.randn(2, 2, 5, 5, dtype=F64, requires_grad=True)
    side = torch.randn(2, 1, 5, 5, dtype=F64, requires_grad=True)
    leaves = [parameter.clone().requires_grad_() for parameter in net.parameters()]
    outputs = by_hand(leaves, image, side)
    grads = [torch.randn_like(y) for y in outputs]
    found = net(image.detach(), side.detach())
    for one, expected in zip(found, outputs, strict=True):
        torch.testing.assert_close(one, expected.detach())
    torch.testing.assert_close(net.predict(image.detach(), side.detach()), found)
    for given in (grads, [grads[0], None], [None, grads[1]]):
        kept = [(y, g) for y, g in zip(outputs, given, strict=True) if g is not None]
        expected = torch.autograd.grad(
            [y for y, _ in kept],
            [image, side, *leaves],
            [g for _, g in kept],
            retain_graph=True,
            allow_unused=True,
        )
        net.zero_grad()
        gradients = net.backward(*given)
        for mine, its in zip(gradients, expected[:2], strict=True):
            assert (mine is None) == (its is None)  # None: no path leads there
            if mine is not None:
                torch.testing.assert_close(mine, its)
        for parameter, its in zip(net.parameters(), expected[2:], strict=True):
            wanted = torch.zeros_like(parameter) if its is None else its
            torch.testing.assert_close(parameter.grad, wanted)


def test_a_network_is_a_module_like_the_others() -> None:
    net = nn.Network(
        {"a": nn.Conv2d(2, 2, 1), "b": (nn.BatchNorm2d(2), "a"), "c": (nn.Add(), "a", "b")}
    )
    assert str(net) == (
        "Network(\n"
        "  (a): Conv2d(in_channels=2, out_channels=2, kernel_size=(1, 1)) of $input\n"
        "  (b): BatchNorm2d(num_features=2) of a\n"
        "  (c): Add() of a, b\n"
        ")"
    )
    x = torch.randn(2, 2, 3, 3)
    outer = nn.Sequential(net, nn.ReLU())
    y = outer(x)
    assert outer.backward(torch.ones_like(y)).shape == x.shape
    other = copy.deepcopy(outer).eval()
    torch.testing.assert_close(other(x), outer.predict(x))
    assert other.double()(x.double()).dtype == F64
    assert [*net.state_dict()] == [
        "a.weight",
        "a.bias",
        "b.weight",
        "b.bias",
        "b.running_mean",
        "b.running_var",
    ]


def test_an_input_without_a_gradient_gets_none_and_a_loss_ends_a_network() -> None:
    net = nn.Network(
        {"y": nn.Linear(3, 2, dtype=F64), "loss": (nn.MSE(), "y", "$target")},
        inputs=["x", "target"],
    )
    x = torch.randn(4, 3, dtype=F64, requires_grad=True)
    target = torch.randn(4, 2, dtype=F64)
    expected = torch.nn.functional.mse_loss(
        torch.nn.functional.linear(x, *net.parameters()), target
    )
    expected.backward()
    torch.testing.assert_close(net(x.detach(), target), expected.detach())
    torch.testing.assert_close(net.backward(torch.tensor(1.0, dtype=F64)), x.grad)
    assert net.differentiable(2) == [True, False]


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ({}, {}, "expected one node or more"),
        ({"a": (nn.ReLU(), "b"), "b": nn.ReLU()}, {}, "node 'a' reads 'b', which is no input and no"),
        ({"a": (nn.ReLU(), "$x")}, {}, r"reads '\$x', .* Known: \$input"),
        ({"a": (nn.Split(), "$input.rest")}, {}, r"reads '\$input.rest'"),
        ({"a": nn.ReLU(), "b": (nn.ReLU(), "a.rest")}, {}, "reads 'a.rest'"),
        ({"a": nn.ReLU(), "b": (nn.ReLU(), "$input")}, {}, "nothing reads 'a'"),
        ({"a": nn.ReLU()}, {"inputs": ["x", "y"]}, r"nothing reads '\$y'"),
        ({"a": nn.ReLU()}, {"outputs": ["b"]}, "outputs reads 'b'"),
        ({"a": nn.ReLU()}, {"outputs": "a"}, "expected lists of names"),
        ({"a": nn.ReLU}, {}, "'a': expected a module of graphnet.nn, got a type"),
        ({"a": (nn.ReLU(), 3)}, {}, "node 'a' reads 3"),
        ({"a": ()}, {}, "'a': expected a module of graphnet.nn, got a tuple"),
    ],
)  # fmt: skip
def test_nodes_that_do_not_fit_are_errors_in_words(
    nodes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        nn.Network(nodes, **options)


def test_inputs_and_gradients_that_do_not_fit_are_errors_in_words() -> None:
    net = branched()
    with pytest.raises(InputError, match=r"expected 2 inputs \(image, side\), got 1"):
        net(torch.zeros(1, 2, 4, 4, dtype=F64))
    with pytest.raises(InputError, match="Network: input 0: expected a tensor, got a list"):
        net([0.0], torch.zeros(1))
    net(torch.zeros(1, 2, 4, 4, dtype=F64), torch.zeros(1, 1, 4, 4, dtype=F64))
    with pytest.raises(InputError, match=r"expected 2 gradients \(sum, rest\), got 1"):
        net.backward(torch.zeros(1, 1, 4, 4, dtype=F64))

"""Absorb casts: kernels that round data themselves read it before the cast."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.builtin.kernels.aten.convolution import AtenConv2d
from graphnet.errors import ContractError
from graphnet.graph import Kind
from graphnet.model import Model, Program
from graphnet.sdk import Register, Registry, hookimpl, load_registry
from tests.support.oracle import random_tensor

SHAPE = (2, 3, 6, 6)
NETWORK: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"id": "a", "conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        "sigmoid",
        {"id": "b", "conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}},
    ],
}


class Rounding(AtenConv2d):
    """conv2d that rounds x to the dtype of the weight."""

    replaces = "conv2d(x, weight, bias)"
    priority = 9
    casts: ClassVar[tuple[str, ...]] = ("x",)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super().forward(x.to(weight.dtype), weight, bias)

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return super().backward(grad_y, x.to(weight.dtype), weight, wanted)


class Plugin:
    @hookimpl
    def graphnet_kernels(self, register: Register) -> None:
        register("acme/conv2d", Rounding)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Plugin()])


def program(registry: Registry, network: dict[str, Any] = NETWORK, **settings: Any) -> Program:
    return Model(network, registry=registry).compile(
        SHAPE, loss="mse", optimizer=SGD(lr=0.1), device="cpu", precision="bfloat16", **settings
    )


def read_by(one: Program, node: str) -> tuple[Kind, torch.dtype]:
    """The kind and dtype of the image that the convolution of a node reads."""
    (call,) = (s.call for s in one.plan.steps if s.call.node == node and s.call.method == "forward")
    value = one.plan.values[str(call.args[0])]
    return value.kind, value.spec.dtype


def test_a_kernel_that_rounds_reads_data_before_its_cast(registry: Registry) -> None:
    """The second convolution reads a value that depends on parameters: its gradient passes the cast."""
    mine = program(registry)
    assert read_by(mine, "a") == (Kind.INPUT, torch.float32)
    assert read_by(mine, "b") == (Kind.LAYER, torch.bfloat16)
    theirs = program(registry, without=["absorb_casts"])
    assert read_by(theirs, "a") == (Kind.LAYER, torch.bfloat16)
    for seed in range(3):
        pair = [random_tensor(SHAPE, seed=2 * seed + i).float() for i in (0, 1)]
        assert torch.equal(mine.step(*pair), theirs.step(*pair))
    for name, weight in theirs.weights.items():
        assert torch.equal(mine.weights[name], weight), name


def test_values_that_depend_on_parameters_are_cast_as_before(registry: Registry) -> None:
    """A norm in float32 before the convolution: the cast between them has a gradient."""
    layers = [{"layer_norm2d": {}}, {"id": "a", "conv2d": {"out_channels": 3, "kernel_size": 1}}]
    one = program(registry, {"input": {"channels": 3}, "layers": layers})
    kind, dtype = read_by(one, "a")
    assert (kind, dtype) == (Kind.LAYER, torch.bfloat16)


def test_a_kernel_can_only_round_what_it_takes() -> None:
    with pytest.raises(
        ContractError, match=r"Wrong.casts names 'image', which forward does not take"
    ):

        class Wrong(Rounding):
            replaces = "conv2d(x, weight, bias)"
            casts: ClassVar[tuple[str, ...]] = ("image",)

"""Costs of calls, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.graph import Arg, Call, Const, Cost, Kind, Value, call_cost
from graphnet.graph.dispatch import peak_bytes_of
from graphnet.model import Model
from graphnet.sdk import (
    Accumulate,
    Assign,
    Definition,
    Layer,
    Spec,
    Specs,
    load_registry,
    register_operator,
)
from tests.support.models import SEED, Acme, Halves


def cost(
    layer: Definition, method: str, *args: Arg, specs: Mapping[str, Spec], results: int = 1
) -> Cost:
    values = {name: Value(name, spec, Kind.INPUT) for name, spec in specs.items()}
    names = tuple(f"r{i}" for i in range(results))
    call = Call("c", Kind.LAYER, layer, method, args, names, "layer", "c")
    return call_cost(call, values)


def test_view_reads_and_writes_nothing() -> None:
    found = cost(Halves(), "forward", "x", specs={"x": Spec((2, 4, 3, 3))}, results=2)
    assert found == Cost(0, 0, 0)


def test_concatenation_reads_and_writes_all_its_inputs() -> None:
    half = Spec((2, 2, 3, 3))
    found = cost(Halves(), "backward", "a", "b", specs={"a": half, "b": half})
    assert found == Cost(0, 2 * 36 * 4, 72 * 4)


def test_tensor_given_twice_is_read_once() -> None:
    spec = Spec((5, 7), torch.float64)
    once = cost(Accumulate(), "forward", ("x", "x"), specs={"x": spec})
    twice = cost(Accumulate(), "forward", ("x", "y"), specs={"x": spec, "y": spec})
    assert once == Cost(35, 35 * 8, 35 * 8)
    assert twice == Cost(35, 2 * 35 * 8, 35 * 8)


def test_update_in_place_writes_its_slot() -> None:
    spec, scalar = Spec((10,)), Spec(())
    specs = {"w": spec, "g": spec, "lr": scalar, "step": Spec((), torch.int64)}
    found = cost(SGD(lr=0.1), "update", "w", "g", "lr", "step", Const(None), specs=specs)
    assert found == Cost(10, (10 + 10 + 1) * 4, 10 * 4)  # the step count is not read


def test_assignment_reads_the_new_value_only() -> None:
    found = cost(Assign(), "update", "s", "new", specs={"s": Spec((6,)), "new": Spec((6,))})
    assert found == Cost(0, 24, 24)


class Shift(Layer):
    """x + offset, one number for each channel; backward asks for x and looks at its shape only."""

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return x + offset.view(1, -1, 1, 1)

    def backward(self, grad_y: Tensor, x: Tensor, specs: Specs) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x) + grad_y, grad_y.sum((0, 2, 3))


def test_broadcast_argument_is_read_once_and_a_shape_is_not_read() -> None:
    x = Spec((2, 3, 4, 4))
    specs = {"x": x, "offset": Spec((3,)), "g": x}
    assert cost(Shift(), "forward", "x", "offset", specs=specs) == Cost(96, 99 * 4, 96 * 4)
    named = Const(MappingProxyType({"x": x, "offset": Spec((3,))}))
    found = cost(Shift(), "backward", "g", "x", named, specs=specs, results=2)
    assert found == Cost(96 + 96, 96 * 4, 99 * 4)


def test_half_of_a_tensor_that_is_read_counts_as_half() -> None:
    class First(Layer):
        """The first half of the channels, plus one."""

        def forward(self, x: Tensor) -> Tensor:
            return x[:, : x.shape[1] // 2] + 1.0

    found = cost(First(), "forward", "x", specs={"x": Spec((2, 4, 3, 3))})
    assert found == Cost(36, 36 * 4, 36 * 4)


@pytest.mark.parametrize("kernels", ["reference", "aten"])
def test_convolution_of_a_plan_counts_its_product(kernels: str) -> None:
    model = Model(SEED, registry=load_registry(plugins=[Acme()], entry_points=False))
    plan = model.plan((2, 3, 8, 8), loss="mse", optimizer=SGD(lr=0.1), kernels=kernels)
    first = call_cost(plan.steps[0].call, plan.values)
    product = 2 * (2 * 4 * 4) * (3 * 2 * 2) * 8  # pixels, window, channels
    assert product <= first.flops <= product + 2 * 4 * 4 * 8  # the bias, if it is added apart
    assert first.bytes_read == 4 * (2 * 3 * 64 + 8 * 12 + 8)
    assert first.bytes_written == 4 * (2 * 8 * 16)
    assert all(call_cost(step.call, plan.values) for step in plan.steps)


def test_work_in_place_costs_the_same_operations() -> None:
    class Halve(Layer):
        """x / 2 where grad is kept, into x itself."""

        def forward(self, x: Tensor, g: Tensor) -> Tensor:
            return torch.ops.aten.threshold_backward(x, g, 0.0)

        def inference(self, x: Tensor, g: Tensor) -> Tensor:
            return torch.ops.aten.threshold_backward.grad_input(x, g, 0.0, grad_input=x)

    specs = {"x": Spec((50,)), "g": Spec((50,))}
    assert cost(Halve(), "forward", "x", "g", specs=specs) == Cost(50, 400, 200)
    assert cost(Halve(), "inference", "x", "g", specs=specs) == Cost(50, 400, 200)


def test_peak_of_a_call_is_the_most_bytes_alive_at_once() -> None:
    x = torch.empty(256, device="meta")  # 1 KiB

    def chained() -> Tensor:
        return x.exp().neg().add(1.0)  # each is dropped as soon as the next is there

    def held() -> Tensor:
        a = x.exp()
        b = a.neg()
        return a + b

    assert peak_bytes_of(chained) == 2048
    assert peak_bytes_of(held) == 3072
    assert peak_bytes_of(lambda: x.view(16, 16).t()) == 0  # a view holds nothing
    assert peak_bytes_of(lambda: x.exp().relu_()) == 1024


def test_peak_of_a_registered_operator_includes_its_scratch() -> None:
    operator = register_operator(
        "needs_room(Tensor x, int rows) -> Tensor",
        lambda x, rows: x.clone(),
        lambda x, rows: torch.empty_like(x),
        namespace="graphnet_tests",
        scratch=lambda x, rows: [x.new_empty(rows, x.numel()), x.new_empty(3)],
    )
    x = torch.empty(64, device="meta")
    assert peak_bytes_of(lambda: operator(x, 10)) == 4 * (64 + 10 * 64 + 3)
    assert peak_bytes_of(lambda: operator(x, rows=10)) == 4 * (64 + 10 * 64 + 3)
    before = torch.empty(7, device="meta")
    assert peak_bytes_of(lambda: [before.clone(), operator(x, 0)]) == 4 * (7 + 64 + 3)

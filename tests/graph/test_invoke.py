"""Layers called by name and in order: `*xs`, what stands behind it, and gradients that come bare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.graph import invoke, positional
from graphnet.model import Model
from graphnet.sdk import (
    AFFINE,
    Constant,
    Layer,
    ParameterSpec,
    Register,
    Specs,
    StateSpec,
    hookimpl,
    load_registry,
)


class Weighted(Layer):
    """The sum of the inputs times a trained number, plus one that stays as it is."""

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"weight": ParameterSpec((1,), Constant(0.5))}

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        return {"offset": StateSpec((1,), Constant(0.25))}

    def forward(self, *xs: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
        return sum(xs, start=torch.zeros(())) * weight + offset

    def backward(
        self, grad_y: Tensor, xs: tuple[Tensor, ...], weight: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        total = sum(xs, start=torch.zeros(()))
        return (grad_y * weight,) * len(xs), (grad_y * total).sum().reshape(1)


class Shifted(Layer):
    """The sum of the inputs plus a number that stays as it is: `*xs` alone has gradients."""

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        return {"offset": StateSpec((1,), Constant(0.25))}

    def forward(self, *xs: Tensor, offset: Tensor) -> Tensor:
        return sum(xs, start=torch.zeros(())) + offset

    def backward(self, grad_y: Tensor, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (grad_y,) * len(xs)


class Channels(Layer):
    """x times a number for each channel, which can be folded."""

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"weight": ParameterSpec((specs["x"].shape[1],), Constant(1.0))}

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * weight.view(1, -1, 1, 1)

    def forward_(self, x: Tensor, weight: Tensor) -> Tensor:
        return x.mul_(weight.view(1, -1, 1, 1))

    overwrites = {"y": "x"}

    def affine_map(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight, torch.zeros_like(weight)

    def absorb(self, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return weight * scale


class Plugin:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("own/weighted", Weighted)
        register("own/shifted", Shifted)


ONE, TWO, THREE, FIVE = (torch.tensor([float(n)]) for n in (1, 2, 3, 5))
SPECS: dict[str, Any] = {"xs": (), "weight": None, "offset": None}
CALLS: list[tuple[Layer, str, dict[str, Any], tuple[Any, ...]]] = [
    # (1 + 2) 3 + 5; then by hand: d/dx = weight, d/dweight = the sum of the inputs
    (Weighted(), "forward", {"xs": (ONE, TWO), "weight": THREE, "offset": FIVE}, (14,)),
    (Weighted(), "backward", {"grad_y": TWO, "xs": (ONE, TWO), "weight": THREE}, ((6, 6), 6)),
    (Shifted(), "forward", {"xs": (ONE, TWO), "offset": FIVE}, (8,)),
    (Shifted(), "backward", {"grad_y": TWO, "xs": (ONE, THREE)}, ((2, 2),)),
    (Shifted(), "backward", {"grad_y": TWO, "xs": (ONE,)}, ((2,),)),
    (Channels(), "affine_map", {"weight": THREE}, (3, 0)),
    (Channels(), "absorb", {"weight": THREE, AFFINE[0]: TWO, AFFINE[1]: ONE}, (6,)),
    (Channels(), "forward", {"x": TWO.view(1, 1, 1, 1), "weight": THREE}, (6,)),
]


def numbers(results: Any) -> Any:
    return tuple(map(numbers, results)) if isinstance(results, tuple) else results.item()


@pytest.mark.parametrize(("layer", "method", "named", "expected"), CALLS)
def test_method_receives_arguments_by_name_and_results_become_a_tuple(
    layer: Layer, method: str, named: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    others = {"specs": SPECS, "unasked": None}
    assert numbers(invoke(layer, method, {**others, **named})) == expected


@pytest.mark.parametrize(("layer", "method", "named", "expected"), CALLS)
def test_arguments_in_order_give_the_results_of_a_call(
    layer: Layer, method: str, named: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    bare = isinstance(layer, Shifted) and method == "backward"
    found = positional(layer, method, list(named.values()))
    assert numbers(found) == (expected[0] if bare else expected)


def test_a_method_that_works_in_place_takes_the_same_arguments() -> None:
    x = torch.ones(1, 1, 1, 2)
    (y,) = invoke(Channels(), "forward_", {"x": x, "weight": THREE})
    assert y is x
    assert numbers((x[..., 0], x[..., 1])) == (3, 3)


@pytest.mark.parametrize("executor", ["reference", "eager"])
@pytest.mark.parametrize("layer", ["own/weighted", "own/shifted"])
@pytest.mark.parametrize("inputs", [["before"], ["before", "before"]])
def test_gradients_of_a_star_before_a_state_reach_the_layers_before(
    layer: str, inputs: list[str], executor: str
) -> None:
    registry = load_registry(plugins=[Plugin()])
    description = {
        "input": {"channels": 1},
        "layers": [
            {"id": "before", "conv2d": {"out_channels": 1, "kernel_size": 1, "bias": False}},
            {"id": "sum", layer: {}, "inputs": inputs},
        ],
    }
    program = Model(description, registry=registry).compile(
        (1, 1, 1, 1), loss="mse", optimizer=SGD(lr=1.0), executor=executor
    )
    weights = {name: tensor.clone() for name, tensor in program.weights.items()}
    program.step(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    w, offset = weights["before.weight"].item(), weights["sum.offset"].item()
    factor = len(inputs) * (weights["sum.weight"].item() if layer == "own/weighted" else 1.0)
    # loss = (factor w + offset)^2, so the slope at w is 2 (factor w + offset) factor
    expected = w - 2 * (factor * w + offset) * factor
    assert program.weights["before.weight"].item() == pytest.approx(expected, rel=1e-5)

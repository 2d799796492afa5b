"""The chain kernel: where it is used, and that it trains as the layers do one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphnet_cpu import chain_operators

import graphnet as gn
from graphnet.model import Program
from tests.support.oracle import random_tensor, relative_error

if problem := chain_operators.CPP.problem():
    pytest.skip(f"the kernel cannot be compiled here: {problem}", allow_module_level=True)

if torch.cpu._is_amx_tile_supported():
    PRECISIONS = [("float32", 2e-5)]
else:
    PRECISIONS = [("float32", 2e-5), ("bfloat16", 4e-2)]
TITLE = "mse_chain [gemm]"


def patch(name: str, channels: int, size: Any = 2, **fields: Any) -> dict[str, Any]:
    return {name: {"out_channels": channels, "kernel_size": size, "stride": size, **fields}}


HOURGLASS = [
    patch("conv2d", 20),
    "relu",
    patch("conv2d", 70, (2, 1)),
    patch("upsampling", 18, (2, 1), bias=False),
    "relu",
    patch("transpose_conv2d", 4),
    "sigmoid",
]
DOWN = [patch("conv2d", 8, bias=False), "relu", patch("conv2d", 6, (3, 2)), "relu"]
UP = [
    patch("transpose_conv2d", 8, (3, 2)),
    patch("conv2d", 10, (3, 2)),
    "relu",
    patch("upsampling", 4),
]
CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}


def compiled(
    layers: list[Any], *, kernels: str = "auto", loss: str = "mse", **options: Any
) -> Program:
    model = gn.Model({"input": {"channels": 4}, "layers": layers})
    optimizer = gn.SGD(lr=0.1)
    shape = (6, 4, 24, 24)
    return model.compile(
        shape, loss=loss, optimizer=optimizer, kernels=kernels, device="cpu", **options
    )


def size_of(program: Program) -> tuple[int, ...]:
    """The shape of its prediction."""
    prediction = program.predict(torch.zeros(6, 4, 24, 24))
    assert isinstance(prediction, torch.Tensor)
    return tuple(prediction.shape)


def titles(program: Program) -> list[str]:
    return [step.call.title for step in program.plan.steps]


@pytest.mark.parametrize("layers", [HOURGLASS, DOWN, UP], ids=["hourglass", "down", "up"])
@pytest.mark.parametrize(("precision", "bound"), PRECISIONS)
@pytest.mark.parametrize("threads", [1, 2])
def test_training_with_the_chain_kernel_equals_training_with_its_layers(
    layers: list[Any], precision: str, bound: float, threads: int
) -> None:
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mine = compiled(layers, precision=precision)
        reference = compiled(layers, kernels="reference")
        assert TITLE in titles(mine)
        before = {name: weight.clone() for name, weight in reference.weights.items()}
        shape = size_of(reference)
        for seed in range(3):
            x = random_tensor((6, 4, 24, 24), seed=seed, dtype=torch.float32)
            target = random_tensor(shape, seed=9 + seed, dtype=torch.float32)
            losses = [program.step(x, target) for program in (mine, reference)]
            assert relative_error(*losses) < bound
    finally:
        torch.set_num_threads(kept)
    moved = [
        torch.cat([(program.weights[name] - start).flatten() for name, start in before.items()])
        for program in (mine, reference)
    ]
    assert relative_error(*moved) < bound


@pytest.mark.parametrize(
    ("first", "wanted"), [([], False), (["tanh"], False), ([patch("upsampling", 4), "tanh"], True)]
)
def test_gradient_of_the_input_is_computed_if_parameters_precede_the_chain(
    first: list[Any], wanted: bool
) -> None:
    mine, reference = (compiled([*first, *HOURGLASS], kernels=k) for k in ("auto", "reference"))
    chain = next(step.call for step in mine.plan.steps if step.call.title == TITLE)
    assert bool(mine.plan.values[str(chain.results[1])].spec.numel) is wanted
    x = random_tensor((6, 4, 24, 24), seed=0, dtype=torch.float32)
    target = random_tensor(size_of(mine), seed=1, dtype=torch.float32)
    for program in (mine, reference):
        program.step(x, target)
    for name, weight in mine.weights.items():
        assert relative_error(weight, reference.weights[name]) < 1e-5


def test_values_inside_the_chain_take_no_memory_in_the_plan() -> None:
    apart = compiled(HOURGLASS, without=["fusion"])
    assert TITLE not in titles(apart)
    assert compiled(HOURGLASS).plan.peak_bytes < apart.plan.peak_bytes


@pytest.mark.parametrize(
    ("layers", "loss"),
    [
        (HOURGLASS, "l1"),
        ([*HOURGLASS, CONV], "mse"),  # overlapping places
        (
            [CONV, *HOURGLASS],
            "mse",
        ),  # pixels would have to move into blocks in the middle of the step
        ([*HOURGLASS, "sigmoid"], "mse"),
        ([*HOURGLASS[:-1], "tanh"], "mse"),
        (["relu", patch("conv2d", 8), "relu"], "mse"),  # one product is none of a chain
        ([patch("conv2d", 8), patch("upsampling", 6, (2, 4)), patch("conv2d", 4)], "mse"),
        ([patch("conv2d", 8, groups=2), patch("conv2d", 4)], "mse"),
        ([patch("conv2d", 8, 6), patch("conv2d", 4)], "mse"),  # too few patches
        ([patch("conv2d", 8, 1), patch("conv2d", 4, 1)], "mse"),  # blocks of one pixel
    ],
)
def test_chain_kernel_refuses_other_patterns(layers: list[Any], loss: str) -> None:
    assert TITLE not in titles(compiled(layers, loss=loss))


def test_chain_is_not_fused_if_another_node_reads_an_inner_value() -> None:
    layers = [
        {"id": "small", **patch("conv2d", 8)},
        {"id": "large", **patch("upsampling", 4)},
        {"id": "other", **patch("upsampling", 4), "inputs": ["small"]},
        {"add": {}, "inputs": ["large", "other"]},
    ]
    assert TITLE not in titles(compiled(layers))

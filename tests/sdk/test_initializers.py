"""weight_init: layers whose weights start as torch.nn.init's functions fill them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin import SGD
from graphnet.errors import DescriptionError
from graphnet.model import Model
from graphnet.sdk import ConvInit, Spec, default_registry
from graphnet.sdk.initializers import Init

DRAWN = ["kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal"]
LAYERS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "conv2d": ({"out_channels": 6, "kernel_size": 3, "groups": 2}, (1, 4, 8, 8), (6, 2, 3, 3)),
    "transpose_conv2d": ({"out_channels": 6, "kernel_size": 3}, (1, 4, 8, 8), (4, 6, 3, 3)),
    "upsampling": ({"out_channels": 6, "kernel_size": 2}, (1, 4, 8, 8), (4, 6, 2, 2)),
    "depthwise_conv2d": ({"kernel_size": 3}, (1, 4, 8, 8), (4, 1, 3, 3)),
    "linear": ({"out_features": 6}, (5, 4), (6, 4)),
}


def start(layer: str, name: str, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The weight and the bias that a layer starts from."""
    config, shape, _ = LAYERS[layer]
    made = default_registry().make("layers", {layer: {**config, "weight_init": name}})
    generator = torch.Generator().manual_seed(seed)
    specs = made.parameters({"x": Spec(shape)})
    weight, bias = (
        specs[port].initializer(torch.full(specs[port].shape, 7.0), generator) for port in specs
    )
    return weight, bias


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("layer", LAYERS)
def test_weights_start_with_the_numbers_of_torch_and_biases_with_0(layer: str, name: str) -> None:
    weight, bias = start(layer, name, seed=3)
    generator = torch.Generator().manual_seed(3)
    empty = torch.empty(LAYERS[layer][2])
    assert torch.equal(weight, getattr(torch.nn.init, f"{name}_")(empty, generator=generator))
    assert not bias.any()


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_from_float32(name: ConvInit, dtype: torch.dtype) -> None:
    wide, narrow = (
        Init(name)(torch.full((6, 4, 3, 3), 7.0, dtype=d), torch.Generator().manual_seed(1))
        for d in (torch.float32, dtype)
    )
    assert torch.equal(narrow, wide.to(dtype))


@pytest.mark.parametrize("layer", LAYERS)
def test_zeros_make_a_layer_whose_first_output_is_0(layer: str) -> None:
    weight, bias = start(layer, "zeros")
    assert not weight.any()
    assert not bias.any()


@pytest.mark.parametrize(
    "layer",
    [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}},
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": "same", "groups": 2}},
        {"depthwise_conv2d": {"kernel_size": 5, "padding": 2}},
        {"transpose_conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 2}},
    ],
)
def test_dirac_passes_an_image_on(layer: dict[str, dict[str, Any]]) -> None:
    ((name, config),) = layer.items()
    described = {name: {**config, "weight_init": "dirac"}}
    model, x = Model({"input": {"channels": 4}, "layers": [described]}), torch.rand(1, 4, 6, 5)
    program = model.compile(x.shape, loss="mse", optimizer=SGD(lr=0.1), device="cpu")
    assert torch.equal(program.predict(x), x)


def test_dirac_with_fewer_channels_than_the_input_passes_the_first_on() -> None:
    weight = Init("dirac")(torch.empty(2, 3, 1, 1), torch.Generator())
    assert weight.flatten().tolist() == [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(("layer", "name"), [("conv2d", "he_normal"), ("linear", "dirac")])
def test_unknown_initializer_is_one_error_that_lists_the_known_ones(layer: str, name: str) -> None:
    with pytest.raises(
        DescriptionError, match=r"weight_init.*kaiming_normal.*orthogonal"
    ) as caught:
        start(layer, name)
    assert len(caught.value.problems) == 1

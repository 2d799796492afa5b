"""The graphs of examples/denoisers and of the included models: outputs and gradients are torch.nn's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import graphnet_denoise
import pytest
import torch
from torch import nn

import graphnet as gn
from benchmarks.large_photo import torch_network
from benchmarks.torch_networks import Centred, Residual, UNet, dncnn17, paper
from graphnet.graph import Kind
from tests.support.oracle import relative_error
from tests.support.torch_denoisers import NAFNet, Restormer

FOLDER = Path(__file__).parents[2] / "examples" / "denoisers"
RECIPES = Path(graphnet_denoise.__file__).parent / "recipes"
GRAPHS: dict[str, Callable[[], nn.Module]] = {
    "seed": paper,
    "dncnn": dncnn17,
    "unet": UNet,
    "unet-denoiser": lambda: Residual(UNet()),
    "unet-fine": lambda: Residual(Centred(UNet((32, 40, 64, 128), finest=3))),
    "unet-grey": lambda: Residual(UNet(inputs=1, outputs=1)),
    "unet-conditioned": partial(UNet, inputs=4),
    "nafnet": NAFNet,
    "restormer": Restormer,
    "unet-photos": torch_network,
}
SHAPE = (2, 16, 24)


def file_of(name: str) -> Path:
    """The file of a network."""
    return (RECIPES if name == "unet-photos" else FOLDER) / f"{name}.yaml"


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_forward_and_all_gradients_equal_torch(name: str, kernels: str) -> None:
    model = gn.load(file_of(name))
    channels = model.input_channels
    assert channels is not None
    generator = torch.Generator().manual_seed(0)
    module = GRAPHS[name]().double()
    for parameter in module.parameters():  # none at 0, where it would hide what lies before it
        fan = max(1, parameter[0].numel())
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = noise / fan**0.5 + (1.0 if fan == 1 else 0.0)
    x, target = (
        torch.rand(SHAPE[0], c, *SHAPE[1:], generator=generator, dtype=torch.float64)
        for c in (channels, min(channels, 3))
    )

    program = model.compile(
        x.shape,
        loss="mse",
        optimizer=gn.SGD(lr=1.0),
        dtype=torch.float64,
        device="cpu",
        kernels=kernels,
    )
    parameters = program.plan.of(Kind.PARAMETER)
    tensors = list(module.parameters())
    assert [program.weights[n].numel() for n in parameters] == [t.numel() for t in tensors]
    for parameter, tensor in zip(parameters, tensors, strict=True):
        weight = program.weights[parameter]
        weight.copy_(tensor.detach().reshape(weight.shape))
    before = {parameter: program.weights[parameter].clone() for parameter in parameters}
    loss = program.step(x, target)

    y = module(x)
    expected = torch.nn.functional.mse_loss(y, target)
    expected.backward()
    assert relative_error(loss, expected.detach()) <= 1e-12
    for parameter, tensor in zip(parameters, tensors, strict=True):
        assert tensor.grad is not None
        gradient = before[parameter] - program.weights[parameter]  # SGD of rate 1
        scale = float(before[parameter].abs().max()) / float(tensor.grad.abs().max())
        error = relative_error(gradient, tensor.grad.reshape(gradient.shape))
        assert error <= 1e-10 + 1e-15 * scale, parameter

    module.eval()
    with torch.no_grad():
        module(x)  # running statistics were moved by the one training step
        trained = {**program.weights, **before}
        predicted = gn.Model(program.description, weights=trained).predict(x)
        assert relative_error(predicted, module(x)) <= 1e-10


@pytest.mark.parametrize("name", GRAPHS)
def test_file_says_how_many_parameters_there_are(name: str) -> None:
    text = file_of(name).read_text()
    count = sum(parameter.numel() for parameter in GRAPHS[name]().parameters())
    assert f"{count:,} parameters" in text

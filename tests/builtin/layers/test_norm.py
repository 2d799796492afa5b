"""batch_norm2d, both kernels, against torch.nn.BatchNorm2d, in training and in inference, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin import BatchNorm2d
from graphnet.builtin.kernels.aten.norm import AtenBatchNorm2d
from graphnet.errors import DescriptionError, GraphError
from graphnet.model import Model
from graphnet.sdk import Layer
from tests.support.oracle import STRIDES, kernel_of, random_tensor, relative_error

SHAPES = [(4, 3, 5, 7), (1, 3, 2, 1), (3, 1, 1, 1), (2, 5, 1, 6)]
kernels = pytest.mark.parametrize("kernel", ["reference", "aten"])
floating = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def layer_of(kernel: str, definition: BatchNorm2d, x: Tensor) -> Layer:
    if kernel == "reference":
        return definition
    layer = kernel_of(AtenBatchNorm2d, definition, [x])
    assert layer is not None
    return layer


def slots(channels: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Parameters and states that are all different, variances positive."""
    names = ("weight", "bias", "running_mean", "running_var")
    drawn = {
        name: random_tensor((channels,), seed=i, dtype=dtype, device=device)
        for i, name in enumerate(names, start=10)
    }
    return drawn | {"running_var": drawn["running_var"].abs() + 0.1}


def torch_module(definition: BatchNorm2d, tensors: dict[str, Tensor]) -> torch.nn.BatchNorm2d:
    weight = tensors["running_mean"]
    module = torch.nn.BatchNorm2d(
        weight.shape[0],
        eps=definition.eps,
        momentum=definition.momentum,
        affine=definition.affine,
        device=weight.device,
        dtype=weight.dtype,
    )
    own = module.state_dict()
    module.load_state_dict({name: tensors.get(name, own[name]) for name in own})
    return module


@kernels
@floating
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_equals_torch(
    kernel: str, dtype: torch.dtype, affine: bool, shape: tuple[int, ...], device: torch.device
) -> None:
    bound = 1e-12 if dtype is torch.float64 else 2e-5
    definition = BatchNorm2d(eps=1e-3, momentum=0.3, affine=affine)
    x = random_tensor(shape, seed=1, dtype=dtype, device=device) * 3 + 1
    grad_y = random_tensor(shape, seed=2, dtype=dtype, device=device)
    tensors = slots(shape[1], dtype, device)
    module = torch_module(definition, tensors)
    leaf = x.clone().requires_grad_()
    expected = module(leaf)
    given: list[Any] = [tensors[name] if affine else None for name in ("weight", "bias")]
    states = [tensors[name].clone() for name in ("running_mean", "running_var")]
    kept = x.clone(), grad_y.clone(), *(state.clone() for state in states)

    layer = layer_of(kernel, definition, x)
    y, mean, inverse_std, next_mean, next_var = layer.forward(x, *given, *states)
    wanted = frozenset(("x", "weight", "bias") if affine else ("x",))
    found = layer.backward(grad_y, x, given[0], mean, inverse_std, wanted)

    assert relative_error(y, expected.detach()) <= bound
    assert relative_error(next_mean, module.running_mean) <= bound  # type: ignore[arg-type]
    assert relative_error(next_var, module.running_var) <= bound  # type: ignore[arg-type]
    sources = (leaf, module.weight, module.bias) if affine else (leaf,)
    for gradient, wanted_gradient in zip(
        found, torch.autograd.grad(expected, sources, grad_y), strict=False
    ):
        scale = float(grad_y.abs().max())
        assert float((gradient - wanted_gradient).abs().max()) <= 10 * bound * scale
    for before, after in zip(kept, (x, grad_y, *states), strict=True):
        assert torch.equal(before, after)


@kernels
@floating
@pytest.mark.parametrize("affine", [True, False])
def test_inference_equals_torch_in_eval_mode(
    kernel: str, dtype: torch.dtype, affine: bool, device: torch.device
) -> None:
    definition = BatchNorm2d(affine=affine)
    x = random_tensor((2, 3, 4, 5), seed=1, dtype=dtype, device=device)
    tensors = slots(3, dtype, device)
    expected = torch_module(definition, tensors).eval()(x).detach()
    given = [tensors[name] if affine else None for name in ("weight", "bias")]
    y = layer_of(kernel, definition, x).inference(
        x, *given, tensors["running_mean"], tensors["running_var"]
    )
    assert relative_error(y, expected) <= (1e-13 if dtype is torch.float64 else 1e-6)


@kernels
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides_are_accepted(kernel: str, strides: str, device: torch.device) -> None:
    x = random_tensor((2, 3, 4, 5), seed=1, strides=strides, device=device)
    grad_y = random_tensor((2, 3, 4, 5), seed=2, strides=strides, device=device)
    tensors = slots(3, torch.float64, device)
    wanted = frozenset({"x", "weight", "bias"})
    layer = layer_of(kernel, BatchNorm2d(), x)
    found, expected = (
        (y, *layer.backward(g, image, tensors["weight"], mean, inverse_std, wanted))
        for image, g in ((x, grad_y), (x.contiguous(), grad_y.contiguous()))
        for y, mean, inverse_std, *_ in [layer.forward(image, *tensors.values())]
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@kernels
def test_by_hand(kernel: str, device: torch.device) -> None:
    x = torch.tensor([1.0, 3.0, 1.0, 3.0], dtype=torch.float64, device=device).view(2, 1, 2, 1)
    definition = BatchNorm2d(eps=3.0, momentum=0.25)
    weight, bias, mean, var = (
        torch.tensor([n], dtype=torch.float64, device=device) for n in (10.0, 5.0, 6.0, 4.0)
    )
    y, *_, next_mean, next_var = layer_of(kernel, definition, x).forward(x, weight, bias, mean, var)
    # mean 2, biased variance 1: sqrt(1 + 3) = 2, so z = -1/2 and 1/2; unbiased variance 4/3
    assert y.flatten().tolist() == pytest.approx([0.0, 10.0, 0.0, 10.0])
    assert next_mean.item() == pytest.approx(6.0 + 0.25 * (2.0 - 6.0))
    assert next_var.item() == pytest.approx(4.0 + 0.25 * (4.0 / 3.0 - 4.0))


@pytest.mark.parametrize("chosen", ["auto", "reference"])
def test_steps_of_a_model_equal_torch_with_its_running_statistics(chosen: str) -> None:
    shape = (4, 3, 6, 6)
    convolution = {"conv2d": {"out_channels": 5, "kernel_size": 3}}
    model = Model(
        {
            "input": {"channels": 3},
            "layers": [
                convolution,
                {"batch_norm2d": {"momentum": 0.2}},
                "relu",
                {"id": "c", **convolution},
            ],
        }
    )
    program = model.compile(
        shape,
        loss="mse",
        optimizer={"sgd": {"lr": 0.1}},
        device="cpu",
        dtype=torch.float64,
        kernels=chosen,
    )
    first, norm, last = (
        torch.nn.Conv2d(3, 5, 3),
        torch.nn.BatchNorm2d(5, momentum=0.2),
        torch.nn.Conv2d(5, 5, 3),
    )
    network = torch.nn.Sequential(first, norm, torch.nn.ReLU(), last).double()
    parts = {"conv2d_1": first, "batch_norm2d_1": norm, "c": last}
    for node, module in parts.items():
        state = {
            name: program.weights[f"{node}.{name}"].clone()
            for name in module.state_dict()
            if name != "num_batches_tracked"
        }
        module.load_state_dict(state, strict=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        x = torch.rand(shape, generator=generator, dtype=torch.float64)
        target = torch.rand((4, 5, 2, 2), generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(network(x), target)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(program.step(x, target), loss.detach(), rtol=1e-12, atol=0)
    for node, module in parts.items():
        for name, tensor in module.state_dict().items():
            if name != "num_batches_tracked":
                found = program.weights[f"{node}.{name}"]
                torch.testing.assert_close(found, tensor, rtol=1e-10, atol=1e-13)
    expected = network.eval()(x).detach()
    torch.testing.assert_close(program.predict(x), expected, rtol=1e-10, atol=1e-12)


def test_one_value_a_channel_gives_the_bias_and_no_variance() -> None:
    x = torch.tensor([[[[7.0]], [[-3.0]]]])
    tensors = slots(2, torch.float32, x.device)
    y, *_, next_mean, next_var = BatchNorm2d(momentum=0.5).forward(x, *tensors.values())
    assert torch.equal(y.flatten(), tensors["bias"])
    torch.testing.assert_close(next_mean, 0.5 * (tensors["running_mean"] + x.flatten()))
    torch.testing.assert_close(next_var, 0.5 * tensors["running_var"])
    assert kernel_of(AtenBatchNorm2d, BatchNorm2d(), [x]) is None  # torch refuses it


@pytest.mark.parametrize(
    ("definition", "shape", "message"),
    [
        (BatchNorm2d(num_features=4), (1, 3, 2, 2), "expected 4 input channels, got 3"),
        (BatchNorm2d(), (2, 3), "expected an input N x C x H x W, got 2x3"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    definition: BatchNorm2d, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        kernel_of(AtenBatchNorm2d, definition, [torch.zeros(shape)])


@pytest.mark.parametrize("fields", [{"eps": -1.0}, {"momentum": 1.5}, {"num_features": 0}])
def test_field_out_of_range_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(DescriptionError, match=next(iter(fields))):
        BatchNorm2d(**fields)  # type: ignore[arg-type]

"""The module facade against torch.nn: arguments, initial values, gradients and their accumulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from graphnet import nn
from graphnet.builtin import Conv2d as Conv2dLayer
from graphnet.errors import (
    DescriptionError,
    DeviceError,
    GraphError,
    GraphnetError,
    InputError,
    LayerError,
    UnknownNameError,
)
from graphnet.sdk import (
    Layer,
    ParameterSpec,
    Register,
    Spec,
    Specs,
    StateSpec,
    Uniform,
    hookimpl,
    load_registry,
)
from graphnet.sdk.random import uniform

F64 = torch.float64
CONVOLUTIONS: list[tuple[Any, Any, tuple[Any, ...], dict[str, Any]]] = [
    (nn.Conv2d, torch.nn.Conv2d, (4, 6, 3), {}),
    (nn.Conv2d, torch.nn.Conv2d, (4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, False), {}),
    (nn.Conv2d, torch.nn.Conv2d, (4, 4, 3), {"padding": "same", "groups": 4}),
    (nn.Conv2d, torch.nn.Conv2d, (4, 2, 2), {"padding": "valid", "stride": 3}),
    (nn.TransposeConv2d, torch.nn.ConvTranspose2d, (4, 6, 3), {}),
    (
        nn.TransposeConv2d,
        torch.nn.ConvTranspose2d,
        (4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (2, 1)),
        {},
    ),
    (nn.Upsampling, torch.nn.ConvTranspose2d, (4, 2, 2), {"stride": 2}),
]
convolutions = pytest.mark.parametrize(
    ("ours", "torchs", "arguments", "options"),
    CONVOLUTIONS,
    ids=[f"{ours.__name__}{i}" for i, (ours, *_) in enumerate(CONVOLUTIONS)],
)


def normal(*shape: int, seed: int, dtype: torch.dtype = F64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64).to(dtype)


def close(found: Tensor, expected: Tensor, *, rtol: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected.detach(), rtol=rtol, atol=rtol)


@pytest.fixture(params=[True, False], ids=["autograd on", "autograd off"])
def autograd(request: pytest.FixtureRequest) -> Iterator[None]:
    """With autograd on and off globally."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(request.param)
    yield
    torch.set_grad_enabled(before)


@convolutions
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_initial_values_are_those_of_torch(
    ours: Any, torchs: Any, arguments: tuple[Any, ...], options: Any, dtype: torch.dtype
) -> None:
    torch.manual_seed(3)
    expected = torchs(*arguments, **options, dtype=dtype)
    torch.manual_seed(3)
    module = ours(*arguments, **options, dtype=dtype)
    rtol = 1e-6 if dtype is torch.float32 else 1e-14
    close(module.weight, expected.weight, rtol=rtol)
    assert module.weight.dtype == dtype
    if expected.bias is None:
        assert module.bias is None
        assert len(module.param()) == 1
    else:
        close(module.bias, expected.bias, rtol=rtol)
        assert len(module.param()) == 2


@convolutions
def test_a_generator_takes_the_place_of_the_global_one(
    ours: Any, torchs: Any, arguments: tuple[Any, ...], options: Any
) -> None:
    torch.manual_seed(3)
    expected = torchs(*arguments, **options)
    state = torch.get_rng_state()
    module = ours(*arguments, **options, generator=torch.Generator().manual_seed(3))
    close(module.weight, expected.weight, rtol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)


@convolutions
def test_forward_and_backward_equal_torch_and_gradients_accumulate_until_zeroed(
    ours: Any, torchs: Any, arguments: tuple[Any, ...], options: Any, device: torch.device
) -> None:
    torch.manual_seed(0)
    expected = torchs(*arguments, **options, dtype=F64, device=device)
    module = ours(*arguments, **options, dtype=F64, device=device)
    module.weight = expected.weight
    if expected.bias is not None:
        module.bias = expected.bias
    for round in range(3):
        x = normal(2, 4, 7, 9, seed=round).to(device).requires_grad_()
        y = expected(x)
        grad_y = normal(*y.shape, seed=9 + round).to(device)
        (grad_x,) = torch.autograd.grad(y, x, grad_y, retain_graph=True)
        y.backward(grad_y)  # adds to .grad, as ours adds to the gradients in param()
        close(module(x.detach()), y)
        close(module.backward(grad_y), grad_x)
        pairs = module.param()
        for (parameter, gradient), theirs in zip(pairs, expected.parameters(), strict=True):
            close(parameter, theirs)
            close(gradient, theirs.grad)
            assert gradient.device.type == device.type
    module.zero_grad()
    assert all(not gradient.any() for _, gradient in module.param())


class Net:
    """The same small network, in ours and in torch, with the same weights."""

    def __init__(self, device: torch.device) -> None:
        options: dict[str, Any] = {"dtype": F64, "device": device}
        torch.manual_seed(0)
        self.ours = nn.Sequential(
            nn.Conv2d(3, 4, 2, 2, **options),
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, **options), nn.Sigmoid()),
            nn.NearestUpsampling((2, 1)),
            nn.Upsampling(4, 3, (1, 2), (1, 2), **options),
        )
        torch.manual_seed(0)
        self.torchs = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 2, 2, **options),
            torch.nn.ReLU(),
            torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1, **options), torch.nn.Sigmoid()),
            torch.nn.Upsample(scale_factor=(2.0, 1.0)),
            torch.nn.ConvTranspose2d(4, 3, (1, 2), (1, 2), **options),
        )
        for (mine, _), theirs in zip(self.ours.param(), self.torchs.parameters(), strict=True):
            mine.copy_(theirs.detach())


@pytest.mark.usefixtures("autograd")
@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.5},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
    ],
)
def test_training_equals_torch(options: dict[str, Any], device: torch.device) -> None:
    net = Net(device)
    optimizer = nn.SGD(net.ours.param(), **options)
    theirs = torch.optim.SGD(net.torchs.parameters(), **options)
    criterion = nn.MSE()
    for step in range(5):
        x = normal(2, 3, 8, 6, seed=step).to(device)
        target = normal(2, 3, 8, 6, seed=100 + step).to(device)
        with torch.enable_grad():
            expected = torch.nn.functional.mse_loss(net.torchs(x), target)
            theirs.zero_grad()
            expected.backward()
        theirs.step()
        loss = criterion(net.ours(x), target)
        close(loss, expected)
        assert not loss.requires_grad
        net.ours.backward(criterion.backward())
        optimizer.update_parameters()
        assert all(not gradient.any() for _, gradient in net.ours.param())
    for (mine, _), parameter in zip(net.ours.param(), net.torchs.parameters(), strict=True):
        close(mine, parameter, rtol=1e-9)


@pytest.mark.usefixtures("autograd")
def test_step_keeps_gradients_and_zero_grad_takes_them_away(device: torch.device) -> None:
    module = nn.Conv2d(1, 1, 1, bias=False, device=device)
    module.weight = torch.full((1, 1, 1, 1), 2.0)
    optimizer = nn.SGD(module.param(), lr=0.1)
    ((weight, gradient),) = module.param()
    for _ in range(2):  # dw = 3 * 5, twice
        module(torch.full((1, 1, 1, 1), 3.0, device=device))
        assert module.backward(torch.full((1, 1, 1, 1), 5.0, device=device)).item() == 10.0
    assert gradient.item() == 30.0
    optimizer.step()
    assert weight.item() == pytest.approx(-1.0)
    assert gradient.item() == 30.0
    optimizer.zero_grad()
    assert gradient.item() == 0.0
    optimizer.lr = 1.0
    module(torch.ones(1, 1, 1, 1, device=device))
    module.backward(torch.ones(1, 1, 1, 1, device=device))
    optimizer.step()
    assert weight.item() == pytest.approx(-2.0)


def test_update_parameters_of_a_sequential_is_one_plain_step() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    net[0].weight = torch.full((1, 1, 1, 1), 2.0)
    net(torch.full((1, 1, 1, 1), 3.0))
    net.backward(torch.ones(1, 1, 1, 1))
    net.update_parameters(0.5)
    assert net[0].weight.item() == 0.5  # 2 - 0.5 * 3
    assert net.param()[0][1].item() == 0.0


def test_module_used_twice_has_its_parameters_once_and_sums_both_gradients(
    device: torch.device,
) -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1, dtype=F64, device=device)
    relu = nn.ReLU()
    net = nn.Sequential(conv, relu, conv, relu)
    assert len(net.param()) == 2
    assert len(net) == 4
    x = normal(2, 2, 5, 5, seed=1).to(device).requires_grad_()
    leaves = [parameter.clone().requires_grad_() for parameter, _ in net.param()]
    h = torch.nn.functional.conv2d(x, *leaves, padding=1).relu()
    y = torch.nn.functional.conv2d(h, *leaves, padding=1).relu()
    grad_y = normal(2, 2, 5, 5, seed=2).to(device)
    grad_x, *grads = torch.autograd.grad(y, [x, *leaves], grad_y)
    close(net(x.detach()), y)
    close(net.backward(grad_y), grad_x)
    for (_, gradient), expected in zip(net.param(), grads, strict=True):
        close(gradient, expected)


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.Sigmoid(), nn.NearestUpsampling(2), nn.Conv2d(2, 3, 2)]
)
def test_results_do_not_require_grad_and_inputs_are_untouched(layer: nn.Module) -> None:
    x = normal(1, 2, 3, 3, seed=0, dtype=torch.float32).requires_grad_()
    kept = x.detach().clone()
    y = layer(x)
    grad_x = layer.backward(torch.ones_like(y))
    assert not y.requires_grad
    assert not grad_x.requires_grad
    assert grad_x.shape == x.shape
    assert torch.equal(x, kept)


def test_mse_gives_the_gradient_of_the_prediction_in_its_own_dtype(device: torch.device) -> None:
    prediction = normal(2, 3, 7, 5, seed=0).to(device).requires_grad_()
    target = normal(2, 3, 7, 5, seed=1).to(device)
    expected = torch.nn.functional.mse_loss(prediction, target)
    (gradient,) = torch.autograd.grad(expected, prediction)
    criterion = nn.MSE()
    close(criterion(prediction.detach(), target), expected, rtol=1e-14)
    found = criterion.backward()
    close(found, gradient, rtol=1e-14)
    close(criterion.backward(torch.tensor(3.0, dtype=F64, device=device)), 3 * gradient, rtol=1e-14)


def test_weights_are_assigned_in_place_and_checked() -> None:
    module = nn.Conv2d(2, 3, 1)
    ((weight, _), (bias, _)) = module.param()
    module.weight = torch.arange(6, dtype=F64).view(3, 2, 1, 1)
    module.bias = torch.nn.Parameter(torch.ones(3))
    assert weight.flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert weight.dtype == torch.float32
    assert bias.tolist() == [1.0, 1.0, 1.0]
    assert module.weight is weight
    with pytest.raises(InputError, match=r"weight: expected a tensor of shape \(3, 2, 1, 1\), got"):
        module.weight = torch.zeros(3, 2)
    with pytest.raises(InputError, match="bias: expected a tensor of shape"):
        module.bias = 0.0
    with pytest.raises(InputError, match="has no 'bias' to set: it was made without"):
        nn.Conv2d(1, 1, 1, bias=False).bias = torch.zeros(1)
    with pytest.raises(AttributeError, match="Conv2d has no attribute or parameter 'wieght'"):
        module.wieght
    module.note = "kept"  # other attributes are the user's own
    assert module.note == "kept"


def test_parameters_of_shapes_not_yet_known_are_made_in_the_first_forward() -> None:
    module = nn.Module(Conv2dLayer(out_channels=3, kernel_size=1))
    with pytest.raises(InputError, match="no parameters yet: .* Call it once, or give `specs`"):
        module.param()
    with pytest.raises(InputError, match="has no 'weight' to set: call it once"):
        module.weight = torch.zeros(3, 2, 1, 1)
    module(torch.zeros(1, 2, 4, 4))
    assert module.weight.shape == (3, 2, 1, 1)
    assert len(module.param()) == 2
    given = nn.Module(Conv2dLayer(out_channels=3, kernel_size=1), specs=[Spec((1, 5, 1, 1))])
    assert given.weight.shape == (3, 5, 1, 1)
    assert nn.ReLU().param() == []


def test_to_changes_dtype_and_keeps_the_pairs_and_the_optimizer(device: torch.device) -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sigmoid(), nn.MSE())
    net = net[:2]
    optimizer = nn.SGD(net.param(), lr=0.1, momentum=0.9)
    pairs = net.param()
    values = [parameter.clone() for parameter, _ in pairs]
    assert net.to(device, F64) is net
    assert all(a is b for a, b in zip(pairs[0], net.param()[0], strict=True))
    for (parameter, gradient), value in zip(pairs, values, strict=True):
        assert parameter.dtype == gradient.dtype == F64
        assert parameter.device.type == gradient.device.type == device.type
        assert torch.equal(parameter.cpu(), value.to(F64))
    leaves = [parameter.clone().requires_grad_() for parameter, _ in pairs]
    theirs = torch.optim.SGD(leaves, lr=0.1, momentum=0.9)
    for step in range(3):
        x = normal(2, 2, 3, 3, seed=step).to(device)
        theirs.zero_grad()
        torch.nn.functional.conv2d(x, *leaves).sigmoid().sum().backward()
        theirs.step()
        y = net(x)
        assert y.dtype == F64
        net.backward(torch.ones_like(y))
        optimizer.update_parameters()
    for (parameter, _), leaf in zip(pairs, leaves, strict=True):
        close(parameter, leaf)


def test_to_before_the_first_forward_sets_dtype_and_device_of_parameters() -> None:
    module = nn.Module(Conv2dLayer(out_channels=3, kernel_size=1)).to(dtype=F64)
    assert module(torch.zeros(1, 2, 4, 4, dtype=F64)).dtype == F64
    assert module.weight.dtype == F64


class RunningMean(Layer):
    """x minus a running mean over the batches; outside training, minus what it is by then."""

    updates: ClassVar[tuple[str, ...]] = ("mean", "batches")

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        return {
            "mean": StateSpec((specs["x"].shape[1],)),
            "batches": StateSpec((), dtype=torch.int64),
        }

    def forward(self, x: Tensor, mean: Tensor, batches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = mean + 0.5 * (x.mean((0, 2, 3)) - mean)
        return x - mean.view(1, -1, 1, 1), mean, batches + 1

    def inference(self, x: Tensor, mean: Tensor) -> Tensor:
        return x - mean.view(1, -1, 1, 1)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y


class Dropout(Layer):
    """Zeroes half of the elements; backward draws the mask again."""

    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        return x * (uniform(key, x.shape) >= 0.5) * 2

    def backward(self, grad_y: Tensor, key: Tensor) -> Tensor:
        return grad_y * (uniform(key, grad_y.shape) >= 0.5) * 2

    def inference(self, x: Tensor) -> Tensor:
        return x * 1


class Affine(Layer):
    """gain * x + shift with two numbers, and two outputs: the result and its square."""

    outputs: ClassVar[tuple[str, ...]] = ("y", "square")
    scale: float = 1.0

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        return {"gain": ParameterSpec((1,), Uniform(self.scale)), "shift": None}

    def forward(self, x: Tensor, gain: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        y = gain * x
        return y, y * y

    def backward(
        self, grad_y: Tensor, x: Tensor, gain: Tensor, y: Tensor, grad_square: Tensor | None = None
    ) -> tuple[Tensor, Tensor, None]:
        if grad_square is not None:
            grad_y = grad_y + 2 * y * grad_square
        return grad_y * gain, (grad_y * x).sum().view(1), None


class Broken(Layer):
    """Fails in backward, and in forward on three channels."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 3:
            raise ZeroDivisionError("three")
        return x * 1

    def backward(self, grad_y: Tensor) -> Tensor:
        raise KeyError("cause")


class ThirdParty:
    """A plugin with the layers above."""

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        for layer in (RunningMean, Dropout, Affine, Broken):
            register(f"acme/{layer.__name__.lower()}", layer)


def test_registered_layers_of_third_parties_are_made_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = load_registry(plugins=[ThirdParty()], entry_points=False)
    monkeypatch.setattr(nn.registered, "default_registry", lambda: registry)
    module = nn.make("acme/affine", scale=2.0)
    assert module.layer == Affine(scale=2.0)
    assert nn.make("mse").layer == nn.MSE().layer
    assert nn.make("conv2d", out_channels=2, kernel_size=3).layer.kernel_size == (3, 3)
    with pytest.raises(
        UnknownNameError, match="unknown layer 'acme/affin'. Did you mean 'acme/aff"
    ):
        nn.make("acme/affin")
    with pytest.raises(DescriptionError, match="scal: unknown field. Did you mean 'scale'"):
        nn.make("acme/affine", scal=2.0)


@pytest.mark.usefixtures("autograd")
def test_a_module_of_any_layer_has_outputs_gradients_and_parameters(device: torch.device) -> None:
    module = nn.Module(Affine(scale=2.0), dtype=F64, device=device)
    x = normal(2, 3, seed=0).to(device)
    y, square = module(x)
    assert -2.0 <= float(module.gain) <= 2.0
    assert module.shift is None
    with torch.enable_grad():
        gain, leaf = module.gain.clone().requires_grad_(), x.clone().requires_grad_()
        outputs = (gain * leaf, (gain * leaf) ** 2)
        grads = normal(2, 3, seed=1).to(device), normal(2, 3, seed=2).to(device)
        grad_x, grad_gain = torch.autograd.grad(outputs, [leaf, gain], grads, retain_graph=True)
    close(y, outputs[0])
    close(square, outputs[1])
    close(module.backward(*grads), grad_x)
    close(module.param()[0][1], grad_gain)
    module.zero_grad()
    only_y, only_gain = torch.autograd.grad(outputs[:1], [leaf, gain], grads[:1], retain_graph=True)
    close(module.backward(grads[0], None), only_y)  # its default takes the None
    close(module.param()[0][1], only_gain)
    module.zero_grad()
    only_square, _ = torch.autograd.grad(outputs[1:], [leaf, gain], grads[1:])
    close(module.backward(None, grads[1]), only_square)  # a None without a default is zeros


def test_several_inputs_and_outputs_are_tuples(device: torch.device) -> None:
    xs = [normal(1, c, 2, 2, seed=c).to(device) for c in (1, 2, 3)]
    concat, add = nn.make("concat"), nn.make("add")
    y = concat(*xs)
    assert torch.equal(y, torch.cat(xs, 1))
    assert all(map(torch.equal, concat.backward(y), xs))
    assert torch.equal(add(xs[0], xs[0]), 2 * xs[0])
    assert all(torch.equal(grad, xs[0]) for grad in add.backward(xs[0]))


def mixed() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))


def ours() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Module(RunningMean()))
    net(torch.zeros(1, 2, 3, 3))
    return net


MOVES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "dtype": ("to", (F64,), {}),
    "dtype=": ("to", (), {"dtype": F64}),
    "device": ("to", ("cpu",), {}),
    "torch.device": ("to", (torch.device("cpu"),), {}),
    "device=": ("to", (), {"device": "cpu"}),
    "device, dtype": ("to", ("cpu", torch.bfloat16), {}),
    "device, dtype=": ("to", ("cpu",), {"dtype": torch.float16}),
    "device=, dtype=": ("to", (), {"device": "cpu", "dtype": F64}),
    "None, dtype": ("to", (None, F64), {}),
    "device, None": ("to", ("cpu", None), {}),
    "None": ("to", (None,), {}),
    "nothing": ("to", (), {}),
    "tensor": ("to", (torch.zeros(1, dtype=F64),), {}),
    "tensor=": ("to", (), {"tensor": torch.zeros(1, dtype=torch.float16)}),
    "non_blocking": ("to", (F64,), {"non_blocking": True}),
    "double": ("double", (), {}),
    "float": ("float", (), {}),
    "half": ("half", (), {}),
    "bfloat16": ("bfloat16", (), {}),
    "cpu": ("cpu", (), {}),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("start", [torch.float32, F64])
def test_modules_move_as_torchs_do(move: str, start: torch.dtype) -> None:
    method, arguments, options = MOVES[move]
    theirs, mine = mixed().to(start), ours().to(start)
    tensors = [*mine.param(), (mine[1].mean, mine[1].batches)]
    values = [tuple(tensor.clone() for tensor in pair) for pair in tensors]
    assert getattr(mine, method)(*arguments, **options) is mine
    getattr(theirs, method)(*arguments, **options)
    (parameter, count) = theirs[0].weight, theirs[1].num_batches_tracked  # type: ignore[index]
    mean = theirs[1].running_mean  # type: ignore[index]
    after = [*mine.param(), (mine[1].mean, mine[1].batches)]
    for found, before in zip(after, tensors, strict=True):
        assert all(a is b for a, b in zip(found, before, strict=True))  # the same objects
    for weight, gradient in mine.param():
        assert (weight.dtype, weight.device) == (parameter.dtype, parameter.device)
        assert (gradient.dtype, gradient.device) == (parameter.dtype, parameter.device)
    assert (mine[1].mean.dtype, mine[1].batches.dtype) == (mean.dtype, count.dtype)
    for (tensor, _), (value, _) in zip(after, values, strict=True):
        assert torch.equal(tensor, value.to(tensor.dtype))
    module, method_of_one = nn.Conv2d(2, 3, 1, dtype=start), getattr(nn.Module, method)
    assert method_of_one(module, *arguments, **options) is module
    assert module.weight.dtype == parameter.dtype
    x = torch.zeros(1, 2, 3, 3, dtype=parameter.dtype)
    assert module(x).dtype == theirs[0](x).dtype  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((torch.int64,), {}, InputError, "to: dtype: expected float32, .* got torch.int64"),
        ((torch.zeros(1, dtype=torch.uint8),), {}, InputError, "to: dtype: .* got torch.uint8"),
        ((), {"dtype": "float64"}, InputError, "to: dtype: .* got 'float64'"),
        (("float64",), {}, DeviceError, "unknown device 'float64'"),
        (("meta",), {}, DeviceError, "device 'meta' is not supported"),
        (("cuda:99",), {}, DeviceError, "device 'cuda:99' was requested"),
        ((99,), {}, DeviceError, "99"),
        (("cpu", "cpu"), {}, InputError, r"expected to\(dtype\), .* got 'cpu', 'cpu'"),
        ((F64, "cpu"), {}, InputError, r"expected to\(dtype\), .* got torch.float64, 'cpu'"),
        ((F64, F64), {}, InputError, "dtype is given twice"),
        (("cpu",), {"device": "cpu"}, InputError, "device is given twice"),
        ((torch.zeros(1), F64), {}, InputError, "got a tensor, torch.float64"),
        ((torch.zeros(1),), {"dtype": F64}, InputError, "got a tensor"),
        ((1.5,), {}, InputError, r"expected to\(dtype\), .* got 1.5"),
        ((True,), {}, InputError, "got True"),
        (([F64],), {}, InputError, r"got \[torch.float64\]"),
    ],
)
def test_wrong_targets_are_refused_and_nothing_is_moved(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for module in (nn.Conv2d(2, 3, 1), ours()):
        before = [tensor.clone() for pair in module.param() for tensor in pair]
        with pytest.raises(error, match=message):
            module.to(*arguments, **options)
        after = [tensor for pair in module.param() for tensor in pair]
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(after, before, strict=True)
        )


def test_cuda_moves_modules_or_says_that_there_is_none() -> None:
    module = nn.Conv2d(2, 3, 1)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="has no CUDA devices"):
            module.cuda()
        with pytest.raises(DeviceError):
            module.cuda(0)
        assert module.weight.device.type == "cpu"
        return
    assert module.cuda() is module
    assert module.weight.device == torch.device("cuda", torch.cuda.current_device())
    assert module.cuda(0).cpu().weight.device.type == "cpu"


def test_a_module_on_an_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="unknown device 'gpu'"):
        nn.Conv2d(2, 3, 1, device="gpu")


@pytest.mark.usefixtures("autograd")
def test_states_change_in_training_and_only_there(device: torch.device) -> None:
    module = nn.Module(RunningMean(), dtype=F64, device=device)
    for batch, mean in ((4.0, 2.0), (8.0, 5.0)):  # 0 + (4 - 0) / 2, then 2 + (8 - 2) / 2
        x = torch.full((2, 3, 2, 2), batch, dtype=F64, device=device)
        assert torch.equal(module(x), x - mean)
        assert module.mean.tolist() == [mean] * 3
        assert module.mean.device.type == device.type
    assert module.batches.item() == 2
    assert module.batches.dtype == torch.int64
    one = torch.ones(1, 3, 1, 1, dtype=F64, device=device)
    assert module.predict(one).flatten().tolist() == [-4.0] * 3
    assert module.batches.item() == 2
    assert torch.equal(module.backward(x), x)
    assert module.param() == []
    state = module.mean
    module.mean = torch.zeros(3)
    assert module.mean is state
    assert state.tolist() == [0.0] * 3
    module.to(dtype=torch.float32)
    assert module.mean.dtype == torch.float32
    assert module.batches.dtype == torch.int64


@pytest.mark.usefixtures("autograd")
def test_predict_saves_nothing_and_equals_forward_for_layers_without_inference() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sigmoid())
    x = normal(1, 2, 5, 5, seed=0, dtype=torch.float32)
    y = net.predict(x)
    with pytest.raises(InputError, match="call forward before backward"):
        net.backward(y)
    assert torch.equal(net(x), y)
    other = normal(3, 2, 5, 5, seed=1, dtype=torch.float32)
    net.predict(other)
    assert net.backward(torch.ones_like(y)).shape == x.shape  # of the forward, not of predict


def test_random_layer_draws_a_new_mask_each_forward_and_repeats_it_in_backward(
    device: torch.device,
) -> None:
    x = torch.ones(1, 1, 64, 64, device=device)
    first, second = nn.Module(Dropout()), nn.Module(Dropout())
    drawn = [first(x), first(x), second(x)]
    for y in drawn:
        assert set(y.unique().tolist()) == {0.0, 2.0}
        assert 0.4 < float((y == 0).float().mean()) < 0.6
    for a, b in ((0, 1), (0, 2), (1, 2)):  # two masks agree in about half of the places
        assert 0.4 < float((drawn[a] == drawn[b]).float().mean()) < 0.6
    assert torch.equal(first.backward(x), drawn[1])
    assert torch.equal(second.backward(x), drawn[2])
    assert torch.equal(first.predict(x), x)


def test_random_layers_repeat_after_the_same_seed() -> None:
    x = torch.ones(1, 1, 64, 64)
    net = nn.Sequential(nn.Module(Dropout()), nn.Module(Dropout()))

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        result: Tensor = net(x)
        return result

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert float((net(x) == 0).float().mean()) == pytest.approx(0.75, abs=0.05)  # two masks
    own = [nn.Module(Dropout(), generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(own[0](x), own[1](x))


def test_an_empty_sequential_hands_its_input_on() -> None:
    x = torch.ones(2)
    assert nn.Sequential()(x) is x
    assert nn.Sequential().predict(x) is x
    assert nn.Sequential().param() == []


def test_inputs_that_do_not_fit_are_errors_in_words() -> None:
    module = nn.Conv2d(3, 8, 3)
    with pytest.raises(InputError, match="Conv2d: call forward before backward"):
        module.backward(torch.zeros(1))
    with pytest.raises(GraphError, match="expected 3 input channels, got 4"):
        module(torch.zeros(1, 4, 8, 8))
    with pytest.raises(GraphError, match="the kernel spans 3x3, more than the padded input of 2x2"):
        module(torch.zeros(1, 3, 2, 2))
    with pytest.raises(GraphError, match="takes 1 inputs"):
        module(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    module(torch.zeros(1, 3, 8, 8))
    with pytest.raises(
        InputError, match=r"expected a gradient of shape \(1, 8, 6, 6\) for 'y', got"
    ):
        module.backward(torch.zeros(1, 8, 6, 1))
    with pytest.raises(InputError, match=r"expected 1 gradients \(y\), got 2"):
        module.backward(torch.zeros(1, 8, 6, 6), torch.zeros(1))
    with pytest.raises(GraphError, match="expected a target of the prediction's shape"):
        nn.MSE()(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(GraphnetError, match="Conv2d"):
        module(torch.zeros(1, 3, 8, 8, dtype=F64))


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(GraphError, match="groups"):
        nn.Conv2d(3, 8, 3, groups=2)
    with pytest.raises(DescriptionError, match="'same' needs stride 1"):
        nn.Conv2d(3, 8, 3, stride=2, padding="same")
    with pytest.raises(DescriptionError, match="output_padding"):
        nn.TransposeConv2d(3, 8, 3, output_padding=1)
    with pytest.raises(DescriptionError, match="scale_factor"):
        nn.NearestUpsampling(0)
    with pytest.raises(DescriptionError, match="lr"):
        nn.SGD([], lr=-1.0)
    with pytest.raises(DescriptionError, match="nesterov"):
        nn.SGD([], lr=1.0, nesterov=True)


def test_error_in_a_plugins_layer_names_the_layer_and_keeps_the_cause() -> None:
    module = nn.Module(Broken())
    with pytest.raises(LayerError, match="Broken.*forward failed: ZeroDivisionError: three") as e:
        module(torch.zeros(1, 3))
    assert isinstance(e.value.__cause__, ZeroDivisionError)
    module(torch.zeros(1, 2))
    with pytest.raises(LayerError, match="Broken.*backward failed: KeyError: 'cause'") as e:
        module.backward(torch.zeros(1, 2))
    assert isinstance(e.value.__cause__, KeyError)


def test_a_layer_without_backward_says_so() -> None:
    class OneWay(Layer):
        def forward(self, x: Tensor) -> Tensor:
            return x * 1

    module = nn.Module(OneWay())
    module(torch.zeros(2))
    with pytest.raises(LayerError, match="OneWay defines no backward"):
        module.backward(torch.zeros(2))

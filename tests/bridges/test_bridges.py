"""Bridges: graphnet layers in ordinary torch code, and torch modules in graphs, against pure torch."""

from __future__ import annotations

import ast
import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphnet as gn
from graphnet import nn as facade
from graphnet.bridges import as_torch_module, from_torch_module, plugin
from graphnet.builtin import MSE
from graphnet.errors import GraphError, InputError, LayerError
from graphnet.model import Builder, Model
from graphnet.sdk import Layer, Registry, load_registry
from tests.support.models import Acme, Center, Dropout, Swish, random_dag

# torch.compile instantiates autograd Functions itself, and warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}


class Products(Layer):
    """The products of the two first inputs and of the first with itself; either may go unused."""

    outputs: ClassVar[tuple[str, ...]] = ("cross", "square")

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return x * z, x * x

    def backward(
        self, grad_cross: Tensor, x: Tensor, z: Tensor, grad_square: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        grad_x = grad_cross * z
        return (grad_x if grad_square is None else grad_x + 2 * grad_square * x), grad_cross * x


class SavesItself(Layer):
    """x * x, whose save is the very tensor that came in."""

    saves: ClassVar[tuple[str, ...]] = ("kept",)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * x, x

    def backward(self, grad_y: Tensor, kept: Tensor) -> Tensor:
        return 2 * grad_y * kept


class SavesItsOutput(Layer):
    """exp(x), which is its output and its save: one tensor."""

    saves: ClassVar[tuple[str, ...]] = ("kept",)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.exp()
        return y, y

    def backward(self, grad_y: Tensor, kept: Tensor) -> Tensor:
        return grad_y * kept


class Broken(Layer):
    """Fails when it runs on more than three rows."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 3:
            raise ValueError("too many rows")
        return x * 1.0


class ResidualBlock(nn.Module):
    """torchvision's BasicBlock with stride 1, written plainly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def numbers(*shape: int, **options: Any) -> Tensor:
    return torch.randn(shape, dtype=options.pop("dtype", torch.float64), **options)


def as_double(layer: object, *shapes: tuple[int, ...], **options: Any) -> nn.Module:
    return as_torch_module(layer, *shapes, dtype=torch.float64, **options)  # type: ignore[arg-type]


# -- as_torch_module: the same gradients as torch ----------------------------------------------------


def conv_pair() -> tuple[nn.Module, nn.Module]:
    mine = as_double({"conv2d": {"out_channels": 5, "kernel_size": 3, "stride": 2}}, (1, 4, 7, 7))
    theirs = nn.Conv2d(4, 5, 3, 2).double()
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_convolution_has_torchs_gradients_and_parameter_names(kernels: str) -> None:
    layer = {"conv2d": {"out_channels": 5, "kernel_size": 3, "stride": 2}}
    mine = as_double(layer, (1, 4, 7, 7), kernels=kernels)
    theirs = nn.Conv2d(4, 5, 3, 2).double()
    theirs.load_state_dict(mine.state_dict())
    for size in ((2, 4, 7, 7), (1, 4, 8, 9)):  # other shapes than it was made for, too
        x = numbers(*size, requires_grad=True)
        for module in (mine, theirs):
            module(x).square().sum().backward()
        assert x.grad is not None
        torch.testing.assert_close(mine(x), theirs(x), **TIGHT)
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, **TIGHT)
    torch.testing.assert_close(torch.autograd.grad(mine(x).sin().sum(), x),
                               torch.autograd.grad(theirs(x).sin().sum(), x), **TIGHT)  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "count", "reference"),
    [
        (Swish(beta=1.5), 1, lambda x: x * torch.sigmoid(1.5 * x)),
        (SavesItself(), 1, lambda x: x * x),
        (SavesItsOutput(), 1, torch.exp),
        ("concat", 3, lambda *xs: torch.cat(xs, 1)),
        ("mse", 2, lambda p, t: F.mse_loss(p, t.detach())),
        ("acme/halves", 1, lambda x: x.chunk(2, 1)),
    ],
)
@pytest.mark.parametrize("backend", [None, "eager", "aot_eager"])
def test_layers_in_eager_and_compiled_code(
    layer: object, count: int, reference: Any, backend: str | None, registry: Registry
) -> None:
    module: Any = as_double(layer, registry=registry)
    xs = [numbers(2, 4, 3, 3, requires_grad=True) for _ in range(count)]
    if backend:
        module = torch.compile(module, backend=backend, fullgraph=True)
    found, expected = (y if isinstance(y, tuple) else (y,) for y in (module(*xs), reference(*xs)))
    for y, z in zip(found, expected, strict=True):
        torch.testing.assert_close(y, z, **TIGHT)
    gradients = (
        torch.autograd.grad(sum(y.sin().sum() for y in ys), xs, allow_unused=True)
        for ys in (found, expected)
    )
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, **TIGHT)


@pytest.mark.parametrize("used", ["cross", "square", "both"])
@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_an_unused_outputs_gradient_is_zeros_or_none(used: str, backend: str | None) -> None:
    x, z = numbers(3, 2, requires_grad=True), numbers(3, 2, requires_grad=True)
    module: Any = as_double(Products())
    if backend:
        module = torch.compile(module, backend=backend, fullgraph=True)
    cross, square = module(x, z)
    expected = {"cross": x * z, "square": x * x, "both": x * z + x * x}[used]
    found = {"cross": cross, "square": square, "both": cross + square}[used]
    mine = torch.autograd.grad(found.sum(), (x, z), materialize_grads=True)
    theirs = torch.autograd.grad(expected.sum(), (x, z), materialize_grads=True)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


@pytest.mark.parametrize("backend", [None, "eager", "aot_eager"])
def test_a_model_has_the_gradients_of_its_own_plan(registry: Registry, backend: str | None) -> None:
    """Views, shared parameters, values used twice, states: against the plan's update by SGD."""
    for seed in range(2):
        model = Model(random_dag(10, seed), registry=registry)
        x, target = numbers(2, 4, 6, 6), numbers(2, 4, 6, 6)
        program = model.compile(
            x.shape, loss="mse", optimizer={"sgd": {"lr": 1.0}}, dtype=x.dtype, device="cpu"
        )
        module: Any = as_double(model, (2, 4, 6, 6))
        assert set(module.state_dict()) == set(program.weights)
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(tensor, program.weights[name], rtol=0, atol=0)
        run = torch.compile(module, backend=backend, fullgraph=True) if backend else module
        loss = F.mse_loss(run(x), target)
        loss.backward()
        torch.testing.assert_close(program.step(x, target), loss.detach(), **TIGHT)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= parameter.grad
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(tensor, program.weights[name], **TIGHT)


def test_double_use_in_one_graph_adds_gradients() -> None:
    mine, theirs = conv_pair()
    x = numbers(2, 4, 7, 7)
    for module in (mine, theirs):
        (module(x) * module(2 * x)).sum().backward()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **TIGHT)


def test_facade_modules_share_their_parameters_and_sequential_keeps_sharing() -> None:
    conv = facade.Conv2d(3, 3, 3, padding=1, dtype=torch.float64)
    module = as_torch_module(facade.Sequential(conv, facade.ReLU(), conv))
    x = numbers(1, 3, 5, 5, requires_grad=True)
    y = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
    expected = F.conv2d(y, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(module(x), expected, **TIGHT)
    assert len(list(module.parameters())) == 2
    with torch.no_grad():
        conv.weight.zero_()
    assert float(next(module.parameters()).detach().abs().sum()) == 0.0


# -- as_torch_module: a good citizen -----------------------------------------------------------------


def test_state_dict_to_deepcopy_and_torch_optim() -> None:
    module = as_torch_module(Center(momentum=0.25), (2, 3, 4, 4))
    assert [name for name, _ in module.named_buffers()] == ["mean"]
    x = torch.randn(2, 3, 4, 4)
    module(x)
    torch.testing.assert_close(module.state_dict()["mean"], 0.25 * x.mean((0, 2, 3)))
    twin = copy.deepcopy(module)
    twin.eval()(x)
    torch.testing.assert_close(twin.state_dict(), module.state_dict(), rtol=0, atol=0)
    assert twin.to(torch.float64)(x.double()).dtype == torch.float64
    assert module(x).dtype == torch.float32

    conv = as_torch_module({"conv2d": {"out_channels": 2, "kernel_size": 1}}, (1, 2, 4, 4))
    fresh = as_torch_module({"conv2d": {"out_channels": 2, "kernel_size": 1}}, (1, 2, 4, 4))
    fresh.load_state_dict(conv.state_dict())
    target = torch.randn(4, 2, 4, 4)
    x = torch.randn(4, 2, 4, 4)
    optimizer = torch.optim.Adam(fresh.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.mse_loss(fresh(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert not torch.equal(fresh.weight, conv.weight)


def test_eval_runs_inference_and_refuses_its_gradient_in_words(registry: Registry) -> None:
    module = as_double(Dropout(p=0.5)).eval()
    x = numbers(4, 4, requires_grad=True)
    with torch.no_grad():
        assert torch.equal(module(x), x)
        assert torch.equal(torch.compile(module, backend="eager", fullgraph=True)(x), x)
    with pytest.raises(LayerError, match=r"Dropout: a gradient was asked for in eval mode.*train"):
        module(x).sum().backward()
    center = as_double(Center(), (2, 3, 4, 4)).eval()
    center(numbers(2, 3, 4, 4))
    assert float(center.mean.abs().sum()) == 0.0
    # Without an inference of its own, a layer runs forward, and has gradients in eval mode.
    swish = as_double(Swish()).eval()
    (gradient,) = torch.autograd.grad(swish(x).sum(), x)
    (expected,) = torch.autograd.grad((x * torch.sigmoid(x)).sum(), x)
    torch.testing.assert_close(gradient, expected, **TIGHT)


@pytest.mark.parametrize("backend", [None, "eager", "aot_eager"])
def test_a_key_is_new_in_each_call_and_the_same_in_backward(backend: str | None) -> None:
    module: Any = as_double(Dropout(p=0.5))
    if backend:
        module = torch.compile(module, backend=backend, fullgraph=True)
    x = torch.ones(400, dtype=torch.float64, requires_grad=True)
    first, second = module(x), module(x)
    assert not torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(gradient, first)  # y = mask * 1, so is the gradient
    assert 0.35 < float((first == 0).double().mean()) < 0.65
    torch.manual_seed(7)
    again = module(x)
    torch.manual_seed(7)
    assert torch.equal(module(x), again)


def test_checkpointing_draws_the_same_key_again() -> None:
    from torch.utils.checkpoint import checkpoint

    module = as_double(Dropout(p=0.5))
    x = torch.ones(200, dtype=torch.float64, requires_grad=True)
    y = checkpoint(lambda v: module(v).square(), x, use_reentrant=False)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, 2 * y.detach(), **TIGHT)  # 2 m^2 x, and y = m^2 x^2


def test_second_derivatives_are_refused_in_words() -> None:
    module = as_double(Swish())
    x = numbers(5, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    with pytest.raises(LayerError, match="Swish: the derivative of its backward was asked for"):
        gradient.square().sum().backward()
    for backend in ("eager", "aot_eager"):  # torch's own words
        compiled = torch.compile(module, backend=backend, fullgraph=True)
        (gradient,) = torch.autograd.grad(compiled(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="does not require grad|support double backward"):
            gradient.square().sum().backward()


def test_torch_func_goes_through_it() -> None:
    module = as_double(Swish())
    x = numbers(5)
    found = torch.func.grad(lambda v: module(v).sum())(x)
    torch.testing.assert_close(
        found, torch.func.grad(lambda v: (v * torch.sigmoid(v)).sum())(x), **TIGHT
    )
    conv, theirs = conv_pair()
    x = numbers(1, 4, 7, 7)
    weights = {name: p.detach() * 2 for name, p in theirs.named_parameters()}
    for a, b in zip(
        torch.func.grad(lambda w: torch.func.functional_call(conv, w, (x,)).sum())(
            weights
        ).values(),
        torch.func.grad(lambda w: torch.func.functional_call(theirs, w, (x,)).sum())(
            weights
        ).values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **TIGHT)


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_casts_layers_down_and_losses_up(compiled: bool, registry: Registry) -> None:
    conv = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}
    model = Model({"layers": [conv, "acme/center", "relu", conv]}, registry=registry)
    module: Any = as_torch_module(model, (2, 4, 6, 6))
    run = torch.compile(module, backend="aot_eager", fullgraph=True) if compiled else module
    loss = as_torch_module(MSE())
    x, target = torch.randn(2, 2, 4, 6, 6)
    twin = copy.deepcopy(module)  # the pass changes its buffers
    expected = torch.autograd.grad(loss(twin(x), target), list(twin.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert as_torch_module(conv, (1, 4, 6, 6))(x).dtype == torch.bfloat16
        value = loss(run(x), target)
    assert value.dtype == torch.float32
    value.backward()
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        assert parameter.grad.dtype == torch.float32
        error = float((parameter.grad - gradient).norm() / gradient.norm())
        assert 0 < error < 0.02
    assert all(b.dtype == torch.float32 for b in module.buffers())


def test_autocast_leaves_buffers_their_precision() -> None:
    module = as_torch_module(Center(momentum=0.0), (2, 3, 4, 4))
    module.mean.fill_(1 + 2.0**-20)  # not a bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(torch.randn(2, 3, 4, 4))
    assert torch.equal(module.mean, torch.full((3,), 1 + 2.0**-20))


def test_compiled_code_takes_several_shapes() -> None:
    mine, theirs = conv_pair()
    compiled = torch.compile(mine, backend="eager", fullgraph=True)
    for count in (1, 2, 3, 5, 2):
        x = numbers(count, 4, 7, 7)
        torch.testing.assert_close(compiled(x), theirs(x), **TIGHT)


DDP = """
import os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from graphnet.bridges import as_torch_module
from tests.support.models import SEED
from graphnet.model import Model
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], world_size=2, rank=int(sys.argv[3]))
module = as_torch_module(Model(SEED), (2, 3, 8, 8), dtype=torch.float64)
whole = as_torch_module(Model(SEED), (2, 3, 8, 8), dtype=torch.float64)
parallel = torch.nn.parallel.DistributedDataParallel(module)
x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
rank = dist.get_rank()
parallel(x[2 * rank : 2 * rank + 2]).square().mean().backward()
whole(x).square().mean().backward()
for a, b in zip(module.parameters(), whole.parameters()):
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-13)
print("equal")
dist.destroy_process_group()
"""


def test_distributed_data_parallel_averages_its_gradients(tmp_path: Path) -> None:
    root = Path(gn.__file__).parent.parent
    command = [sys.executable, "-c", DDP, str(root), str(tmp_path / "meet")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert "equal" in output, errors


def test_errors_of_as_torch_module(registry: Registry) -> None:
    with pytest.raises(InputError, match=r"states the shape of each input"):
        as_torch_module({"conv2d": {"out_channels": 2, "kernel_size": 1}})
    with pytest.raises(GraphError, match="conv2d: takes 1 inputs"):
        conv_pair()[0](numbers(1, 4, 7, 7), numbers(1, 4, 7, 7))
    with pytest.raises(LayerError, match="Broken: forward failed: ValueError: too many rows"):
        as_double(Broken())(numbers(4, 1))
    model = Model({"layers": [{"id": "type", "conv2d": {"out_channels": 1, "kernel_size": 1}}]})
    with pytest.raises(InputError, match="'type' in 'type.weight' is the name of an attribute of"):
        as_torch_module(model, (1, 1, 2, 2))
    with pytest.raises(InputError, match="give the shape of each input"):
        as_torch_module(Model({"layers": ["relu"]}))


# -- used in plain torch: a SIREN and a GAN ----------------------------------------------------------


class Sine(Layer):
    """sin(w0 x)   (Sitzmann et al. 2020, section 3.2)."""

    pointwise: ClassVar[bool] = True
    w0: float = 30.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.w0 * x)

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        return grad_y * self.w0 * torch.cos(self.w0 * x)


class TorchSine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30.0 * x)


def siren(sine: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 16), sine(), nn.Linear(16, 16), sine(), nn.Linear(16, 1))
    with torch.no_grad():
        for i, linear in enumerate(m for m in network if isinstance(m, nn.Linear)):
            bound = 1 / 2 if i == 0 else (6 / 16) ** 0.5 / 30.0
            linear.weight.uniform_(-bound, bound)
    return network.double()


def test_a_siren_with_a_graphnet_sine_trains_as_one_in_pure_torch() -> None:
    axis = torch.linspace(-1, 1, 12, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    image = (points[:, :1] * 3).sin() * (points[:, 1:] * 2).cos()
    networks = [siren(lambda: as_torch_module(Sine())), siren(TorchSine)]
    histories = []
    for network in networks:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = F.mse_loss(network(points), image)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        histories.append(losses)
    assert histories[0] == pytest.approx(histories[1], rel=1e-10)
    assert histories[0][-1] < 0.05 * histories[0][0]


def gan_steps(convolution: Callable[[], nn.Module], activation: Callable[[], nn.Module]) -> Any:
    """Ten steps of a small GAN; the discriminator is used three times in a step, once detached."""
    torch.manual_seed(2)
    discriminator = nn.Sequential(
        convolution(), activation(), nn.Flatten(), nn.Linear(4 * 16, 1)
    ).double()
    generator = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))).double()
    adversary = torch.optim.SGD(discriminator.parameters(), lr=0.05)
    artist = torch.optim.SGD(generator.parameters(), lr=0.05)
    draw = torch.Generator().manual_seed(4)
    for _ in range(10):
        real = torch.randn(6, 1, 8, 8, dtype=torch.float64, generator=draw)
        fake = generator(torch.randn(6, 5, dtype=torch.float64, generator=draw))
        adversary.zero_grad()
        loss = F.softplus(-discriminator(real)).mean()
        (loss + F.softplus(discriminator(fake.detach())).mean()).backward()
        adversary.step()
        artist.zero_grad()
        F.softplus(-discriminator(fake)).mean().backward()
        artist.step()
    return [*discriminator.parameters(), *generator.parameters()]


def test_a_gan_with_graphnet_layers_trains_as_one_in_pure_torch() -> None:
    start = nn.Conv2d(1, 4, 2, 2).double()

    def mine() -> nn.Module:
        config = {"conv2d": {"out_channels": 4, "kernel_size": 2, "stride": 2}}
        module = as_torch_module(config, (1, 1, 8, 8), dtype=torch.float64)
        module.load_state_dict(start.state_dict())
        return module

    class TorchSwish(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x)

    def both(convolution: Callable[[], nn.Module], activation: Callable[[], nn.Module]) -> Any:
        return gan_steps(convolution, activation)

    # The convolution is made first: what follows draws the same numbers in both.
    def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def made() -> nn.Module:
            module = make()
            torch.manual_seed(3)
            return module

        return made

    found = both(seeded(mine), lambda: as_torch_module(Swish()))
    expected = both(seeded(lambda: copy.deepcopy(start)), TorchSwish)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


# -- from_torch_module -------------------------------------------------------------------------------


def program_of(layer: Any, *inputs: Tensor, executor: str, optimizer: Any = None) -> Any:
    registry = load_registry(plugins=[plugin(layer)], entry_points=False)
    net = Builder(**{f"i{k}": None for k in range(len(inputs))})
    net.outputs(net(layer.name, *net.inputs))
    return net.model(registry=registry).compile(
        *(x.shape for x in inputs),
        loss="mse",
        optimizer=optimizer or {"sgd": {"lr": 0.1}},
        dtype=torch.float64,
        device="cpu",
        executor=executor,
    )


@pytest.mark.parametrize("executor", ["eager", "reference"])
def test_a_residual_block_trains_in_a_plan_as_in_torch(executor: str, tmp_path: Path) -> None:
    """Two blocks of one module around a graphnet convolution: weights, running statistics, outputs."""
    block = ResidualBlock(4).double()
    layer = from_torch_module(block, (2, 4, 8, 8), name="local/block")
    assert hash(layer) == hash(type(layer)())
    assert layer.updates[0] == "bn1_running_mean"
    registry = load_registry(plugins=[plugin(layer)], entry_points=False)
    net = Builder(channels=4)
    h = net("conv2d", net("local/block", net.input), out_channels=4, kernel_size=1)
    net.outputs(net("local/block", h))
    model = net.model(registry=registry)
    program = model.compile(
        (2, 4, 8, 8),
        loss="mse",
        optimizer={"adam": {"lr": 0.01}},
        dtype=torch.float64,
        device="cpu",
        executor=executor,
    )
    first, middle, last = copy.deepcopy(block), nn.Conv2d(4, 4, 1).double(), copy.deepcopy(block)
    with torch.no_grad():
        middle.weight.copy_(program.weights["conv2d_1.weight"])
        middle.bias.copy_(program.weights["conv2d_1.bias"])  # type: ignore[union-attr]
    theirs = nn.Sequential(first, middle, last)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01)
    for _ in range(4):
        x, target = numbers(2, 4, 8, 8), numbers(2, 4, 8, 8)
        optimizer.zero_grad()
        loss = F.mse_loss(theirs(x), target)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(program.step(x, target), loss.detach(), **TIGHT)
    for prefix, part in (("block_1", first), ("block_2", last)):
        for path, tensor in part.state_dict().items():
            mine = program.weights[f"{prefix}.{path.replace('.', '_')}"]
            torch.testing.assert_close(mine, tensor, **TIGHT)
    image = numbers(1, 4, 5, 6)
    with torch.no_grad():
        expected = theirs.eval()(image)
    torch.testing.assert_close(program.predict(image), expected, **TIGHT)
    program.save(tmp_path / "model.safetensors")
    loaded = Model.load(tmp_path / "model.safetensors", registry=registry)
    torch.testing.assert_close(loaded.predict(image), expected, **TIGHT)
    assert set(block.state_dict()["bn1.num_batches_tracked"].unique().tolist()) == {0}  # untouched


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x)


@pytest.mark.parametrize("executor", ["eager", "reference"])
def test_multihead_attention_as_a_layer_of_three_inputs(executor: str) -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).double()
    layer = from_torch_module(
        module, *[(2, 5, 8)] * 3, name="local/attention", options={"need_weights": False}
    )
    assert layer.signature.forward[:3] == ("x0", "x1", "x2")
    registry = load_registry(plugins=[plugin(layer)], entry_points=False)
    net = Builder(name="attention", x=None)
    net.outputs(net("local/attention", net.input, net.input, net.input))
    x, target = numbers(2, 5, 8), numbers(2, 5, 8)
    program = net.model(registry=registry).compile(
        x.shape, loss="mse", optimizer={"sgd": {"lr": 0.5}}, dtype=x.dtype, device="cpu",
        executor=executor,
    )  # fmt: skip
    theirs = copy.deepcopy(module)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.mse_loss(theirs(x, x, x, need_weights=False)[0], target)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(program.step(x, target), loss.detach(), **TIGHT)
    for path, tensor in theirs.named_parameters():
        mine = program.weights[f"attention_1.{path.replace('.', '_')}"]
        torch.testing.assert_close(mine, tensor.detach(), **TIGHT)
    with torch.no_grad():
        expected = theirs.eval()(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(program.predict(x), expected, **TIGHT)


def test_a_module_with_two_outputs_in_the_facade() -> None:
    theirs = SelfAttention().double()
    layer = from_torch_module(theirs, (2, 5, 8), name="local/self_attention")
    assert layer.outputs == ("y", "y_1")
    mine = facade.Module(layer, dtype=torch.float64)
    x = numbers(2, 5, 8, requires_grad=True)
    for found, expected in zip(mine(x.detach()), theirs(x), strict=True):
        torch.testing.assert_close(found, expected.detach(), **TIGHT)
    g, h = numbers(2, 5, 8), numbers(2, 5, 5)
    out, weights = theirs(x)
    ((out * g).sum() + (weights * h).sum()).backward()
    torch.testing.assert_close(mine.backward(g, h), x.grad, **TIGHT)
    for (_, gradient), parameter in zip(mine.param(), theirs.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, **TIGHT)


def test_dropout_in_a_module_follows_the_nodes_key() -> None:
    module = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 1)).double()
    layer = from_torch_module(module, (4, 6), name="local/dropout")
    assert "key" in layer.signature.forward
    x, target = numbers(4, 6), numbers(4, 1)
    state = torch.get_rng_state()
    losses = {}
    for executor in ("eager", "reference"):
        program = program_of(layer, x, executor=executor)
        losses[executor] = [float(program.step(x, target)) for _ in range(3)]
    assert losses["eager"] == losses["reference"]
    assert torch.equal(torch.get_rng_state(), state)
    fixed = program_of(layer, x, executor="eager", optimizer={"sgd": {"lr": 0.0}})
    first, second = float(fixed.step(x, target)), float(fixed.step(x, target))
    assert first != second
    # The mask in backward is forward's: the step changes the loss as the gradient says.
    key = torch.tensor([5, 9], dtype=torch.int32)
    weights = [p.detach().clone() for p in module.parameters()]
    g = numbers(4, 1)
    gradient = layer.backward(g, x, *weights, key, frozenset({"x"}))[0]
    direction = numbers(4, 6)
    change = layer.forward(x + 1e-6 * direction, *weights, key) - layer.forward(
        x - 1e-6 * direction, *weights, key
    )
    found = float((g * change).sum() / 2e-6)
    assert found == pytest.approx(float((gradient * direction).sum()), rel=1e-7)


def test_spectral_norm_reads_its_old_state_in_backward() -> None:
    module = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)).double()
    layer = from_torch_module(module, (3, 5), name="local/spectral")
    assert len(layer.updates) == 2
    x, target = numbers(3, 5), numbers(3, 4)
    program = program_of(layer, x, executor="eager")
    theirs = copy.deepcopy(module)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.mse_loss(theirs(x), target)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(program.step(x, target), loss.detach(), **TIGHT)


def test_frozen_parameters_and_integer_inputs() -> None:
    module = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2)).double()
    module[1].bias.requires_grad_(False)
    layer = from_torch_module(module, torch.tensor([[1, 2]]), name="local/embedding")
    assert layer.nondifferentiable == ("x",)
    mine = facade.Module(layer, dtype=torch.float64)
    index = torch.tensor([[0, 3, 3]])
    out = mine(index)
    module(index).square().sum().backward()
    mine.backward(2 * out)
    assert len(mine.param()) == 2
    for (_, gradient), parameter in zip(mine.param(), list(module.parameters())[:2], strict=True):
        torch.testing.assert_close(gradient, parameter.grad, **TIGHT)


def test_torch_module_becomes_a_model_and_a_torch_module_again() -> None:
    """A torch module that holds a graphnet layer, as a layer, as a torch module."""
    inner = nn.Sequential(nn.Linear(3, 4), as_torch_module(Swish()), nn.Linear(4, 2)).double()
    layer = from_torch_module(inner, (2, 3), name="local/mixed")
    outer = as_torch_module(layer, (2, 3), dtype=torch.float64)
    x = numbers(5, 3)
    torch.testing.assert_close(outer(x), inner(x), **TIGHT)
    outer(x).square().sum().backward()
    inner(x).square().sum().backward()
    for a, b in zip(outer.parameters(), inner.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **TIGHT)


def test_errors_of_from_torch_module() -> None:
    with pytest.raises(InputError, match="local/x: give an example of each input"):
        from_torch_module(nn.Linear(2, 2), name="local/x")
    with pytest.raises(InputError, match=r"failed on the example inputs \(1, 3\) torch.float32"):
        from_torch_module(nn.Linear(2, 2), (1, 3), name="local/x")
    with pytest.raises(InputError, match="LSTM must return a tensor or a tuple of tensors"):
        from_torch_module(nn.LSTM(2, 2), (1, 1, 2), name="local/x")


def test_autograd_appears_in_the_bridges_only() -> None:
    root = Path(gn.__file__).parent
    word = re.compile(r"torch\.(autograd|func\b|enable_grad)|requires_grad|\.backward\(\)")
    found = {
        path.relative_to(root).parts[0]
        for path in root.rglob("*.py")
        if any(word.search(tokens) for tokens in code_of(path))
    }
    assert found - {"testing"} == {"bridges"}


def code_of(path: Path) -> list[str]:
    """The statements of a file as text, without comments and docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant("")
    return ast.unparse(tree).splitlines()


def test_a_network_of_the_facade_shares_its_parameters_with_the_torch_module() -> None:
    torch.manual_seed(0)
    network = facade.Network(
        {
            "conv": facade.Conv2d(2, 2, 1, dtype=torch.float64),
            "norm": facade.BatchNorm2d(2, dtype=torch.float64),
            "sum": (facade.Add(), "norm", "conv"),
        }
    )
    with pytest.raises(InputError, match="knows its shapes: leave the input shapes out"):
        as_torch_module(network, (1, 2, 4, 4))
    module = as_torch_module(network)
    assert [name for name, _ in module.named_parameters()] == [
        "conv.weight", "conv.bias", "norm.weight", "norm.bias",
    ]  # fmt: skip
    assert [name for name, _ in module.named_buffers()] == ["norm.running_mean", "norm.running_var"]
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    y = module(x)
    y.sum().backward()
    torch.testing.assert_close(network(x), y.detach())
    network.backward(torch.ones_like(y))
    for mine, theirs in zip(network.parameters(), module.parameters(), strict=True):
        assert mine.data_ptr() == theirs.data_ptr()
        torch.testing.assert_close(mine.grad, theirs.grad)


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1)


def test_a_module_that_uses_view_follows_a_convolution() -> None:
    """A plan lays images of a convolution otherwise: N H W C."""
    layer = from_torch_module(Flat(), (2, 3, 16, 16), name="local/flat")
    registry = load_registry(plugins=[plugin(layer)])
    net = Builder(channels=3)
    image = net("conv2d", net.input, out_channels=3, kernel_size=3, padding=1)
    net.outputs(net("local/flat", image), image)
    flat, image = net.model(registry=registry).predict(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(flat, image.flatten(1))

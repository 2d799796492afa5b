"""The operators against torch in float64, on sizes that fit no block; and where kernels are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from graphnet_triton import chain, fused_convolution, plugin
from graphnet_triton.affine import TritonConv2d, _gradients, affine, affine_gradients
from graphnet_triton.batch_norm import batch_norm_relu
from graphnet_triton.chain import patch_chain
from graphnet_triton.convolution import conv2d_relu, mask_and_sum
from graphnet_triton.fastest import fastest
from graphnet_triton.fused_convolution import _convolution, fused_conv2d
from graphnet_triton.gate import TritonSimpleGate, gate, gate_gradient
from graphnet_triton.layer_norm import layer_norm, layer_norm_gradient
from graphnet_triton.mse import mse
from graphnet_triton.shares import add_up
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from triton.runtime.jit import KernelInterface

import graphnet as gn
from graphnet.builtin import Conv2d, chain_shapes
from graphnet.builtin.layers.split import SimpleGate
from graphnet.graph.dispatch import peak_bytes_of
from graphnet.sdk import Kernel, Layer, Layout, Site, Spec, load_registry, pack, unpack

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
dtypes = pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)


def normal(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


def close(found: Tensor, expected: Tensor, bound: float) -> bool:
    return float((found.double() - expected.double()).abs().max()) <= bound * float(
        expected.double().abs().max()
    )


LIMITS = [f"graphnet_triton.affine.{name}" for name in ("PROCESSORS", "_BLOCKS", "_STEPS")]
USUAL, SOME, MANY = (132, 8, 4), (2, 8, 4), (1, 2, 1)  # under which 100 rows are few, some, many


@dtypes
@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        *((USUAL, sizes) for sizes in [(1, 1, 1), (70, 20, 9), (130, 12, 64), (200, 70, 130)]),
        (SOME, (70, 80, 200)),
        *((MANY, sizes) for sizes in [(130, 20, 300), (150, 12, 64), (100, 70, 270)]),
        *((MANY, sizes) for sizes in [(150, 72, 200), (260, 256, 64)]),
    ],
    ids=lambda numbers: "x".join(map(str, numbers)),
)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_products_and_gradients(
    limits: tuple[int, int, int],
    sizes: tuple[int, int, int],
    relu: bool,
    turned: bool,
    dtype: torch.dtype,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, limit in zip(LIMITS, limits, strict=True):
        monkeypatch.setattr(name, limit)
    m, k, n = sizes
    x, bias = (normal(*s, dtype=dtype, device=device, seed=i) for i, s in enumerate([(m, k), (n,)]))
    w = normal(n, k, dtype=dtype, device=device, seed=2).t()  # read by its strides
    grad = normal(m, n, dtype=dtype, device=device, seed=3)
    y = affine(x, w, bias, relu)
    exact = x.double() @ w.double() + bias.double()
    assert close(y, exact.relu() if relu else exact, BOUNDS[dtype])

    mask = y if relu else None
    masked = grad.double() * (y > 0) if relu else grad.double()
    grad_x, grad_w, grad_bias = affine_gradients(grad, x, w, mask, True, True, turned)
    assert close(grad_x, masked @ w.double().t(), BOUNDS[dtype])
    exact_w = masked.t() @ x.double() if turned else x.double().t() @ masked
    assert grad_w.dtype == torch.float32
    assert close(grad_w, exact_w, 1e-5)
    assert close(grad_bias, masked.sum(0), 1e-5)
    only = affine_gradients(grad, x, w, mask, False, False, turned)
    assert [tensor.numel() for tensor in only] == [0, grad_w.numel(), 0]
    assert torch.equal(only[1], grad_w)


class Launched(NamedTuple):
    """A program of products, how many of it run, and the rows and columns of what one takes at once."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, int]


@pytest.mark.parametrize(
    ("rows", "columns", "product", "gradient"),
    [
        (2_048, 256, Launched("product", (32 * 4,), (64, 64)), ((4, 4, 16), (64, 64))),
        (8_192, 256, Launched("product", (128 * 2,), (64, 128)), ((4, 4, 16), (64, 64))),
        (32_768, 256, Launched("product", (256,), (128, 256)), ((1, 2, 64), (256, 128))),
        (100_000, 256, Launched("long_product", (132,), (64, 256)), ((1, 2, 66), (256, 128))),
        (100_000, 64, Launched("long_product", (264,), (64, 64)), ((1, 1, 131), (256, 64))),
        (100_000, 12, Launched("product", (782,), (128, 16)), ((1, 1, 261), (256, 16))),
        (100_000, 255, Launched("product", (782,), (128, 256)), ((1, 2, 66), (256, 128))),
    ],
)
def test_more_rows_select_larger_blocks(
    rows: int,
    columns: int,
    product: Launched,
    gradient: tuple[tuple[int, ...], tuple[int, int]],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each block of 256 columns or of 256 x 128 sums reads its rows once; but all of a GPU has to work."""
    launched: list[Launched] = []

    def note(program: Any, grid: tuple[int, ...]) -> Callable[..., None]:
        name = program.fn.__name__
        sides = ("BI", "BO") if name == "weight_gradient" else ("BM", "BN")
        return lambda *_, **options: launched.append(
            Launched(name, grid, (options.get(sides[0], 0), options.get(sides[1], 0)))
        )

    monkeypatch.setattr(KernelInterface, "__getitem__", note)
    x, w = (
        torch.empty(s, dtype=torch.bfloat16, device=device) for s in ((rows, 256), (256, columns))
    )
    y = affine(x, w, None, False)
    affine_gradients(y, x, w, None, False, False, False)
    assert launched[:2] == [product, Launched("weight_gradient", *gradient)]


@pytest.mark.parametrize("count", [1, 3, 300])
def test_partial_sums_add_up_to_the_whole(count: int, device: torch.device) -> None:
    shares = normal(count, 70, dtype=torch.float32, device=device)
    first, second = (torch.empty(n, device=device) for n in (60, 10))
    add_up(shares, first, second)
    assert close(torch.cat((first, second)), shares.double().sum(0), 1e-6)
    add_up(shares[:, :60].contiguous(), first.zero_(), None)
    assert close(first, shares[:, :60].double().sum(0), 1e-6)


def through_torch(x: Tensor, parameters: list[Tensor], flags: list[bool], logistic: bool) -> Tensor:
    """A chain by torch's own convolutions, on images N C H W."""
    remaining = iter(parameters)
    for transposed, bias, relu in zip(flags[::3], flags[1::3], flags[2::3], strict=True):
        weight = next(remaining)
        convolution = F.conv_transpose2d if transposed else F.conv2d
        x = convolution(x, weight, next(remaining) if bias else None, stride=weight.shape[2:])
        x = x.relu() if relu else x
    return x.sigmoid() if logistic else x


HOURGLASS = (0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0)
CHAINS = {  # flags; whether a sigmoid ends it, the blocks of x and of the target; weights; images
    "paper": (HOURGLASS, (True, 2, 2), [(64, 3, 2, 2), *[(256, 64, 2, 2)] * 2, (64, 3, 2, 2)], 2),
    "hourglass": (HOURGLASS, (True, 2, 2), [(9, 3, 2, 2), *[(5, 9, 2, 2)] * 2, (9, 3, 2, 2)], 2),
    "down": ((0, 0, 1, 0, 1, 1), (False, 2, 0), [(20, 3, 2, 2), (17, 20, 2, 1)], 2),
    "up": (
        (1, 1, 0, 0, 0, 0, 1, 0, 0),
        (True, 0, 1),
        [(3, 4, 2, 3), (6, 4, 2, 3), (6, 2, 3, 1)],
        2,
    ),
    "wide": ((0, 1, 1, 1, 1, 0), (True, 1, 1), [(300, 3, 2, 2), (300, 70, 2, 2)], 1),
    "many": ((1, 0, 1, 1, 0, 0), (False, 0, 2), [(3, 4, 3, 1), (4, 2, 1, 3)], 9),
}


class Drawn(NamedTuple):
    """A chain's arguments, x and target as images N C H W, and what packs those two."""

    x: Tensor
    target: Tensor
    parameters: list[Tensor]
    flags: list[bool]
    logistic: bool
    layouts: tuple[Layout, Layout]

    def arguments(self, wants_x: bool) -> tuple[Any, ...]:
        images = map(pack, (self.x, self.target), self.layouts)
        return (*images, self.parameters, self.flags, self.logistic, wants_x)

    def stored(self) -> tuple[Any, ...]:
        """The arguments as a model stores them: images in row-major order, weights in channels_last."""
        *images, parameters, flags, logistic, wants_x = self.arguments(wants_x=True)
        stored = [
            p.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p
            for p in parameters
        ]
        return (*(image.contiguous() for image in images), stored, flags, logistic, wants_x)


def drawn(
    name: str, dtype: torch.dtype, device: torch.device, *, size: tuple[int, int, int] | None = None
) -> Drawn:
    """size: images, their height and their width."""
    numbers, (logistic, before, behind), shapes, images = CHAINS[name]
    count, high, wide = size or (images, 4 * 3, 4 * 5)
    flags = [bool(flag) for flag in numbers]
    parameters = []
    for i, shape in enumerate(shapes):
        parameters.append(normal(*shape, dtype=dtype, device=device, seed=i) / shape[0] ** 0.5)
        if flags[3 * i + 1]:
            channels = shape[1] if flags[3 * i] else shape[0]
            parameters.append(normal(channels, dtype=dtype, device=device, seed=9 + i))
    blocks = [
        (shape[2], shape[3])
        for shape, transposed in zip(shapes, flags[::3], strict=True)
        if not transposed
    ][:before]
    grown = [(shape[2], shape[3]) for shape in reversed(shapes)][:behind]
    x = normal(count, 3, high, wide, dtype=dtype, device=device, seed=20)
    y = through_torch(x, parameters, flags, logistic)
    target = normal(*y.shape, dtype=torch.float32, device=device, seed=21)
    return Drawn(x, target, parameters, flags, logistic, (tuple(blocks), tuple(grown)))


@dtypes
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_and_all_its_gradients(name: str, dtype: torch.dtype, device: torch.device) -> None:
    given = drawn(name, dtype, device)
    leaves = [tensor.double().requires_grad_() for tensor in (given.x, *given.parameters)]
    with torch.enable_grad():
        y = through_torch(leaves[0], leaves[1:], given.flags, given.logistic)
        exact = F.mse_loss(y, given.target.double())
        expected = torch.autograd.grad(exact, leaves)
    loss, slope, slopes = patch_chain(*given.arguments(wants_x=True))
    orders = [g.permute(0, 2, 3, 1) if g.ndim == 4 else g for g in expected[1:]]
    bound = {torch.float32: 5e-5, torch.bfloat16: 0.2}[dtype]
    assert loss.dtype == torch.float32
    assert close(loss, exact.detach(), bound)
    for found, wanted in (
        (unpack(slope), expected[0]),
        (slopes, torch.cat([order.flatten() for order in orders])),
    ):  # in the mean square: rounding moves some numbers to the other side of a relu's kink
        assert float((found.double() - wanted).norm()) <= bound * float(wanted.norm())
    _, nothing, same = patch_chain(*given.arguments(wants_x=False))
    assert nothing.numel() == 0
    assert torch.equal(same, slopes)


class Work(TorchDispatchMode):
    """Notes each operator of torch that does more than to make room or to look at it in another way."""

    idle = (torch.ops.aten.new_empty.default, torch.ops.aten.promote_types.default)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func not in self.idle:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_a_chain_is_two_launches_that_fill_a_gpu(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = drawn("paper", torch.float32, device, size=(32, 32, 32)).stored()
    launched: list[tuple[str, int]] = []

    def note(program: Any, grid: tuple[int]) -> Callable[..., None]:
        launched.append((program.fn.__name__, *grid))
        return lambda *_, **__: None

    monkeypatch.setattr(KernelInterface, "__getitem__", note)
    with Work() as work:
        chain._chain(*arguments)
    (first, tiles), (second, shares) = launched
    assert (first, second) == ("forward_loss_reverse", "weight_gradients")
    assert tiles == 2048 // 16
    assert 200 < shares <= 264
    assert work.names == []


@dtypes
def test_mse_and_its_slope_of_images_in_any_strides(
    dtype: torch.dtype, device: torch.device
) -> None:
    prediction = normal(3, 5, 17, 9, dtype=dtype, device=device)
    target = normal(3, 5, 17, 9, dtype=dtype, device=device, seed=1)
    for layout in (torch.contiguous_format, torch.channels_last):
        loss, slope = mse(prediction.contiguous(memory_format=layout), target)
        difference = prediction.double() - target.double()
        assert loss.dtype == torch.float32
        assert close(loss, difference.square().mean(), 1e-5)
        assert close(slope, 2 * difference / difference.numel(), BOUNDS[dtype])


@dtypes
@pytest.mark.parametrize(
    ("channels", "made", "sizes"),
    [
        (3, 5, ((1, 1), (1, 1), (1, 1))),
        (20, 70, ((2, 1), (0, 1), (1, 2))),
        (70, 20, ((1, 1), (2, 0), (2, 1))),
    ],
)
@pytest.mark.parametrize("relu", [True, False])
def test_a_fused_convolution(
    channels: int,
    made: int,
    sizes: Any,
    relu: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    x = normal(3, channels, 13, 11, dtype=dtype, device=device)
    weight = normal(made, channels, 3, 3, dtype=dtype, device=device, seed=1)
    bias = normal(made, dtype=dtype, device=device, seed=2) if relu else None
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), *sizes)
    exact = exact.relu() if relu else exact
    for one in (x, x.contiguous(memory_format=torch.channels_last)):
        y = fused_conv2d(one, weight, bias, *sizes, relu)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert close(y, exact, BOUNDS[dtype])
    x[0, 0, 5, 5] = torch.nan
    assert fused_conv2d(x, weight, bias, *sizes, relu).isnan().any()  # also after relu


def test_a_fused_convolution_is_one_launch_and_no_copy(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []

    def note(program: Any, grid: tuple[int]) -> Callable[..., None]:
        launched.append(program.fn.__name__)
        return lambda *_, **__: None

    monkeypatch.setattr(KernelInterface, "__getitem__", note)
    x, weight = (
        torch.empty(shape, device=device, memory_format=torch.channels_last)
        for shape in ((2, 16, 8, 8), (16, 16, 3, 3))
    )
    with Work() as work:
        _convolution(x, weight, torch.empty(16, device=device), (1, 1), (1, 1), (1, 1), True)
    assert launched == ["convolution"]
    assert set(work.names) <= {"aten::empty.memory_format"}


@pytest.fixture
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways are measured, and choices are kept in a folder of the test."""
    monkeypatch.setenv("GRAPHNET_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)


@pytest.mark.parametrize("fast", ["torch", "fused"])
def test_the_fastest_way_is_measured_once(fast: str, measuring: None) -> None:
    called: list[str] = []

    def way(name: str) -> Callable[[], Callable[[], None]]:
        return lambda: lambda: called.append(name)

    def timer(one: Callable[[], object]) -> float:
        one()
        return 1.0 if called[-1] == fast else 2.0

    ways = {name: way(name) for name in ("torch", "fused")}
    assert fastest(ways, key={"size": 1}, timer=timer) == fast
    assert {*called} == {*ways}
    called.clear()
    assert fastest(ways, key={"size": 1}, timer=timer) == fast
    assert called == []
    fastest(ways, key={"size": 2}, timer=timer)
    assert called != []


def unmeasured() -> Callable[[], None]:
    raise AssertionError("nothing may be measured")


def test_processes_that_train_together_take_the_first_way(
    measuring: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert fastest({"torch": unmeasured, "fused": unmeasured}, key={}) == "torch"


def test_nothing_is_measured_unless_torch_may_try_kernels() -> None:
    assert not torch.backends.cudnn.benchmark
    assert fastest({"torch": unmeasured, "fused": unmeasured}, key={}) == "torch"


def test_the_first_way_is_taken_if_memory_is_short(measuring: None) -> None:
    def large() -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert fastest({"torch": large, "fused": large}, key={}) == "torch"


@pytest.mark.parametrize("fast", ["torch", "fused"])
def test_a_plan_takes_the_faster_convolution(
    fast: str, measuring: None, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """Both ways run on random tensors of the size of the plan's."""
    monkeypatch.setattr(fused_convolution, "INTERPRETED", False)
    monkeypatch.setattr(fused_convolution, "_fits", lambda site, conv: True)
    order: list[torch.Size] = []

    def timer(way: Callable[[], object]) -> float:
        made = way()
        assert isinstance(made, Tensor)
        order.append(made.shape)
        mine = "torch" if len(order) % 2 else "fused"
        return 1.0 if mine == fast else 2.0

    monkeypatch.setattr("graphnet_triton.fastest._seconds", timer)
    registry = load_registry(plugins=[plugin], entry_points=False)
    layers = [{"conv2d": {"out_channels": 5, "kernel_size": 3, "padding": 1}}, "relu"]
    model = gn.Model({"input": {"channels": 3}, "layers": layers}, registry=registry)
    plan = model.plan((2, 3, 7, 6), device=str(device), kernels="triton")
    (title,) = (s.call.title for s in plan.steps if "conv2d" in s.call.title)
    assert title == {"torch": "conv2d_bias_relu", "fused": "fused_conv2d_relu"}[fast] + " [triton]"
    assert {*order} == {torch.Size((2, 5, 7, 6))}


def test_a_large_image_is_measured_in_part() -> None:
    spec = Spec((4, 64, 4000, 6000), torch.bfloat16)
    smaller = fused_convolution._smaller(spec)
    assert smaller is not None
    assert smaller.numel <= 1 << 26
    assert smaller.shape[1::2] == spec.shape[1::2]
    same = Spec((4, 64, 40, 60), torch.bfloat16)
    assert fused_convolution._smaller(same) == same


@dtypes
@pytest.mark.parametrize("channels", [6, 70])
def test_a_convolutions_bias_and_relu_and_their_gradients(
    channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    x, bias = (normal(*s, dtype=dtype, device=device) for s in ((2, 4, 13, 11), (channels,)))
    weight = normal(channels, 2, 3, 3, dtype=dtype, device=device, seed=1)
    sizes: Any = ((2, 1), (1, 0), (1, 2), 2)
    y = conv2d_relu(x, weight, bias, *sizes)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), *sizes).relu()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert close(y, exact, BOUNDS[dtype])
    grad = normal(*y.shape, dtype=dtype, device=device, seed=2)
    for one in (grad, grad.contiguous(memory_format=torch.channels_last)):
        masked, of_bias = mask_and_sum(one, y)
        assert torch.equal(masked, torch.where(y > 0, grad, 0))
        assert of_bias.dtype == torch.float32
        assert close(of_bias, masked.double().sum((0, 2, 3)), 1e-5)


@dtypes
def test_a_gate_and_its_gradient(dtype: torch.dtype, device: torch.device) -> None:
    x = normal(2, 10, 7, 5, dtype=dtype, device=device)
    grad = normal(2, 5, 7, 5, dtype=dtype, device=device, seed=1)
    one, other = x.chunk(2, 1)
    bound = 0.0 if dtype == torch.float32 else BOUNDS[dtype]  # the interpreter cuts off, not rounds
    assert close(gate(x), one * other, bound)
    assert close(gate_gradient(grad, x), torch.cat((grad * other, grad * one), 1), bound)


@dtypes
@pytest.mark.parametrize("channels", [3, 40])
def test_layer_norm_is_that_of_torch(
    channels: int, dtype: torch.dtype, device: torch.device
) -> None:
    x = normal(2, channels, 9, 7, dtype=dtype, device=device)
    weight, bias = (normal(channels, dtype=dtype, device=device, seed=i) for i in (1, 2))
    grad = normal(2, channels, 9, 7, dtype=dtype, device=device, seed=3)
    y, mean, inverse_std = layer_norm(x, weight, bias, 1e-6, True)
    leaves = [t.double().requires_grad_() for t in (x, weight, bias)]
    with torch.enable_grad():
        last = leaves[0].permute(0, 2, 3, 1)
        exact = F.layer_norm(last, (channels,), leaves[1], leaves[2], 1e-6).permute(0, 3, 1, 2)
        expected = torch.autograd.grad(exact, leaves, grad.double())
    assert close(y, exact.detach(), BOUNDS[dtype])
    found = layer_norm_gradient(grad, x, weight, mean, inverse_std, True)
    for mine, theirs in zip(found, expected, strict=True):
        assert close(mine, theirs, 2 * BOUNDS[dtype])


def test_batch_statistics_of_many_shares_are_those_of_torch(device: torch.device) -> None:
    """More pixels than one program takes, far from zero, where a plain sum of squares would cancel."""
    x = 100 + normal(4, 17, 40, 33, dtype=torch.float32, device=device)
    running = torch.zeros(17, device=device), torch.ones(17, device=device)
    y, mean, inverse_std, new_mean, new_var = batch_norm_relu(x, None, None, *running, 0.1, 1e-5)
    exact = x.double()
    assert close(mean, exact.mean((0, 2, 3)), 1e-6)
    assert close(inverse_std, (exact.var((0, 2, 3), correction=0) + 1e-5).rsqrt(), 1e-5)
    assert close(new_mean, 0.1 * exact.mean((0, 2, 3)), 1e-6)
    assert close(new_var, 0.9 + 0.1 * exact.var((0, 2, 3)), 1e-5)
    assert close(y, F.batch_norm(exact, None, None, training=True).relu(), 1e-4)


def peak(function: Callable[..., object], given: tuple[Any, ...]) -> int:
    """On copies, which count too: the interpreter takes the arguments anew."""
    return peak_bytes_of(lambda: function(*tree_map_only(Tensor, torch.clone, given)))


@pytest.mark.parametrize("rows", [100, 600])
def test_predicted_peak_includes_partial_sums_of_a_weight_gradient(
    rows: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMITS[0], 2)
    sizes = ((rows, 128), (rows, 128), (128, 128), (rows, 128))
    grad, x, w, y = (normal(*size, dtype=torch.float32, device=device) for size in sizes)
    arguments = (grad, x, w, y, False, True, True)
    without_data = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), arguments)
    needed = peak(_gradients, arguments)
    assert peak(affine_gradients, without_data) == pytest.approx(needed, rel=0.02)


@dtypes
@pytest.mark.parametrize("name", CHAINS)
def test_predicted_peak_includes_the_scratch_of_a_chain(
    name: str, dtype: torch.dtype, device: torch.device
) -> None:
    arguments = drawn(name, dtype, device).stored()
    without_data = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), arguments)

    needed = peak(chain._chain, arguments)
    assert peak(patch_chain, without_data) == pytest.approx(needed, rel=0.02)
    assert peak(chain_shapes, without_data) < 0.9 * needed


WIDENING = Conv2d(out_channels=64, kernel_size=(2, 2), stride=(2, 2))


@pytest.mark.parametrize(
    ("kernel", "layer", "shape", "matches"),
    [
        (TritonConv2d, WIDENING, (1, 3, 8000, 8000), True),
        (TritonConv2d, WIDENING, (1, 3, 12000, 12000), False),
        (TritonSimpleGate, SimpleGate(), (1, 2, 2**15, 2**15 - 1), True),
        (TritonSimpleGate, SimpleGate(), (1, 2, 2**15, 2**15), False),
    ],
)
def test_kernels_refuse_tensors_whose_indices_exceed_32_bits(
    kernel: type[Kernel],
    layer: Layer,
    shape: tuple[int, ...],
    matches: bool,
    device: torch.device,
) -> None:
    site = Site((layer,), {"x": Spec(shape, torch.float32, device)}, device)
    assert (kernel.match(site) is not None) is matches


DESCRIPTION = {
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 8, "kernel_size": 2, "stride": 2}},
        "relu",
        {"upsampling": {"out_channels": 3, "kernel_size": 2, "stride": 2}},
    ],
}


@pytest.mark.parametrize(
    ("loss", "precision", "expected"),
    [
        ("mse", "float32", {"mse_chain [triton]"}),
        ("l1", "float32", {"conv2d_relu [triton]", "upsampling [triton]"}),
        ("mse", "float16", {"conv2d_relu [triton]", "upsampling [triton]", "mse [triton]"}),
    ],
)
def test_training_equals_the_reference_executor(
    loss: str, precision: str, expected: set[str], device: torch.device
) -> None:
    registry = load_registry(plugins=[plugin], entry_points=False)
    settings: dict[str, Any] = {"optimizer": gn.SGD(lr=0.5), "precision": precision}
    bound = {"float32": 1e-5, "float16": 2e-3}[precision]
    programs = [
        gn.Model(DESCRIPTION, registry=registry).compile(
            (2, 3, 8, 8), loss=loss, device=str(device), kernels=kernels, **settings
        )
        for kernels in ("auto", "reference")
    ]
    titles = {step.call.title for step in programs[0].plan.steps}
    assert expected <= titles
    for seed in range(3):
        pair = [
            normal(2, 3, 8, 8, dtype=torch.float32, device=device, seed=seed + i) for i in (0, 9)
        ]
        losses = [program.step(*pair) for program in programs]
        assert close(losses[0], losses[1], bound)
    for name, weight in programs[0].weights.items():
        assert close(weight, programs[1].weights[name], bound)

"""Every registered layer, loss and optimizer has a class in graphnet.nn, with the arguments of torch."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, get_overloads

import pytest
import torch
from torch import Tensor

from graphnet import nn
from graphnet.errors import DescriptionError, GraphError, InputError
from graphnet.sdk import (
    Constant,
    Entry,
    Layer,
    Loss,
    Optimizer,
    ParameterSpec,
    Register,
    Spec,
    Specs,
    default_registry,
    hookimpl,
    load_registry,
)
from tests.support.nn_stub import PATH, stub
from tests.support.nn_typed import main

F64 = torch.float64
REGISTERED = [
    entry
    for kind in ("layers", "losses", "optimizers")
    for entry in default_registry().of_kind(kind).values()
]
BUILT_IN = [entry for entry in REGISTERED if entry.plugin.builtin]
TORCH = torch.nn


@pytest.mark.parametrize("entry", REGISTERED, ids=lambda entry: entry.name)
def test_each_registered_name_has_a_class_made_from_its_fields(entry: Entry) -> None:
    cls = getattr(nn, entry.value.__name__)
    assert cls.arguments.definition is entry.value
    assert issubclass(cls, nn.ModuleOptimizer if issubclass(entry.value, Optimizer) else nn.Module)
    assert (cls.__name__, cls.__module__) == (entry.value.__name__, "graphnet.nn")
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert cls.__name__ in dir(nn)
    first_line = (entry.value.__doc__ or "").strip().split("\n")[0]
    assert first_line in inspect.getdoc(cls)  # type: ignore[operator]
    shown = inspect.signature(cls).parameters
    assert set(entry.value.field_names()) <= set(shown)
    required = {n for n, p in shown.items() if p.default is p.empty} - {"params"}
    assert required >= set(entry.value.required())
    aliases = [name for name in dir(nn) if getattr(nn, name) is cls]
    assert len(aliases) == len(set(aliases)) >= 1


def test_other_names_are_the_same_class() -> None:
    assert nn.Upsampling is nn.ConvTranspose2d is nn.TransposeConv2d
    assert nn.MSELoss is nn.MSE
    assert nn.L1Loss is nn.L1
    assert nn.HuberLoss is nn.Huber


def test_an_unknown_name_is_an_attribute_error_that_offers_the_nearest() -> None:
    with pytest.raises(AttributeError, match="graphnet.nn has no 'Conv2D'. Did you mean 'Conv2d'"):
        nn.Conv2D
    with pytest.raises(ImportError, match="Conv2D"):
        exec("from graphnet.nn import Conv2D")


def test_names_that_are_written_out_are_not_given_to_layers() -> None:
    assert {name for name in nn.__all__ if name[0].isupper()} == nn.registered.TAKEN


# -- the same call as in torch ------------------------------------------------------------------------

ALIKE: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Conv2d", (2, 4, 3, 2, 1, 1, 2, False), {}, (2, 2, 7, 9)),
    ("ConvTranspose2d", (2, 4, 3, 2, 1, 1, 2, True, 2), {}, (2, 2, 5, 4)),
    ("Linear", (5, 3, False), {}, (2, 4, 5)),
    ("Linear", (5, 3), {}, (2, 5)),
    ("BatchNorm2d", (3, 1e-3, 0.2), {}, (4, 3, 5, 2)),
    ("BatchNorm2d", (3, 1e-3, 0.2, False), {"track_running_stats": True}, (4, 3, 5, 2)),
    ("GroupNorm", (2, 4, 1e-3), {}, (2, 4, 3, 3)),
    ("PReLU", (3, 0.1), {}, (2, 3, 4, 4)),
    ("LeakyReLU", (0.3,), {"inplace": False}, (2, 3)),
    ("ReLU", (), {}, (2, 3)),
    ("Sigmoid", (), {}, (2, 3)),
    ("Tanh", (), {}, (2, 3)),
    ("SiLU", (), {}, (2, 3)),
    ("GELU", ("tanh",), {}, (2, 3)),
    ("Softplus", (2.0, 1.0), {}, (2, 3)),
    ("MaxPool2d", ((2, 3), 2, 1, 2), {}, (1, 2, 9, 8)),
    ("AvgPool2d", ((2, 3), 2, 1), {"count_include_pad": False}, (1, 2, 9, 8)),
    ("PixelShuffle", (2,), {}, (1, 4, 3, 3)),
    ("PixelUnshuffle", (2,), {}, (1, 2, 4, 6)),
    ("ReflectionPad2d", ((1, 2, 0, 3),), {}, (1, 2, 5, 4)),
    ("ReplicationPad2d", (2,), {}, (1, 2, 3, 3)),
    ("LayerNorm", ((3, 4), 1e-3), {}, (2, 3, 4)),
    ("LayerNorm", (4, 1e-3, True, False), {}, (2, 3, 4)),
    ("RMSNorm", (4, 1e-3), {}, (2, 3, 4)),
    ("Softmax", (1,), {}, (2, 3, 4)),
    ("LogSoftmax", (1,), {}, (2, 3, 4)),
    ("Flatten", (1, 2), {}, (2, 3, 4, 5)),
]


@pytest.mark.parametrize(
    ("name", "args", "named", "shape"), ALIKE, ids=[f"{one[0]}{i}" for i, one in enumerate(ALIKE)]
)
def test_the_same_arguments_compute_what_torch_computes(
    name: str, args: tuple[Any, ...], named: dict[str, Any], shape: tuple[int, ...]
) -> None:
    mine = getattr(nn, name)(*args, **named).double()
    theirs = getattr(TORCH, name)(*args, **named).double()
    state = {n: t for n, t in theirs.state_dict().items() if n != "num_batches_tracked"}
    mine.load_state_dict(state)
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    y = theirs(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    torch.testing.assert_close(mine(x.detach()), y.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mine.backward(grad), x.grad, rtol=1e-10, atol=1e-10)
    for found, expected in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("MSELoss", {"reduction": "mean"}),
        ("L1Loss", {}),
        ("HuberLoss", {"delta": 0.5, "reduction": "mean"}),
    ],
)
def test_losses_of_torchs_names_compute_what_torch_computes(
    name: str, named: dict[str, Any]
) -> None:
    prediction = torch.randn(3, 4, dtype=F64, requires_grad=True)
    target = torch.randn(3, 4, dtype=F64)
    expected = getattr(TORCH, name)(**named)(prediction, target)
    (gradient,) = torch.autograd.grad(expected, prediction)
    criterion = getattr(nn, name)(**named)
    torch.testing.assert_close(criterion(prediction.detach(), target), expected.detach())
    torch.testing.assert_close(criterion.backward(), gradient)


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: entry.name)
def test_arguments_by_position_mean_what_they_mean_in_torch(entry: Entry) -> None:
    """For every built-in class that torch has too, also those that come later."""
    is_rule = issubclass(entry.value, Optimizer)
    cls = getattr(nn, entry.value.__name__)
    names = {name for name in dir(nn) if getattr(nn, name) is cls}
    home = torch.optim if is_rule else TORCH
    shared = [name for name in sorted(names) if name in vars(home)]
    positions = list(cls.arguments.positional)
    for name in shared:
        made = getattr(home, name)
        stated = get_overloads(made.__init__)[:1]  # an LSTM takes *args otherwise
        theirs = list(inspect.signature(stated[0] if stated else made).parameters)
        theirs = theirs[1 if is_rule or stated else 0 :]
        assert positions == theirs[: len(positions)]
    if not shared:
        assert positions in ([], list(entry.value.field_names()))


def test_arguments_that_only_torch_has_are_taken_at_torchs_default_and_otherwise_refused() -> None:
    assert nn.ReLU(inplace=False).layer == nn.ReLU().layer
    with pytest.raises(
        InputError, match=r"ReLU: inplace=True is an argument of torch's class only"
    ):
        nn.ReLU(inplace=True)
    with pytest.raises(InputError, match=r"MSE: reduction='sum' .* reduction='mean'"):
        nn.MSELoss(reduction="sum")
    with pytest.raises(InputError, match="SGD: maximize=True"):
        nn.SGD([], lr=0.1, maximize=True)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_a_default_that_is_another_in_torch_must_be_given(name: str) -> None:
    cls = getattr(nn, name)
    with pytest.raises(InputError, match=rf"{name}: expected batch_first=True.*batch_first=False"):
        cls(8, 16)
    with pytest.raises(DescriptionError, match="batch_first: expected"):
        cls(8, 16, batch_first=False)
    with pytest.raises(InputError, match="num_layers=2 is an argument of torch's class only"):
        cls(8, 16, num_layers=2, batch_first=True)
    module = cls(8, 16, batch_first=True, dropout=0.0)
    assert (module.input_size, module.hidden_size) == (8, 16)
    assert module.weight_ih_l0.shape[1] == 8  # made at once: input_size fixes its shape
    assert inspect.signature(cls).parameters["batch_first"].default is inspect.Parameter.empty
    with pytest.raises(GraphError, match="expected 8 features on the last axis"):
        module(torch.zeros(2, 3, 7))


def test_wrong_calls_are_errors_in_words() -> None:
    with pytest.raises(InputError, match=r"at most 1 arguments by position \(p\), got 2"):
        nn.Dropout(0.5, False)
    with pytest.raises(InputError, match="MSE: expected at most 0 arguments by position, got 1"):
        nn.MSELoss("mean")
    with pytest.raises(InputError, match="Conv2d: in_channels is given twice"):
        nn.Conv2d(3, 8, 3, in_channels=3)
    with pytest.raises(DescriptionError, match="kernel_siz: unknown field. Did you mean"):
        nn.Conv2d(3, 8, kernel_siz=3)
    with pytest.raises(DescriptionError, match="kernel_size: must be given"):
        nn.Conv2d(3, 8)
    with pytest.raises(DescriptionError, match="p: expected"):
        nn.Dropout(2.0)
    assert nn.Conv2d(3, 8, [3, 1]).kernel_size == (3, 1)


# -- when parameters are made -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 4, 3),
        lambda: nn.Conv2d(6, 4, 3, groups=2),
        lambda: nn.Conv2d(1, 1, 1),
        lambda: nn.ConvTranspose2d(6, 4, 2, groups=2),
        lambda: nn.Linear(3, 4),
        lambda: nn.BatchNorm2d(5),
        lambda: nn.BatchNorm2d(5, affine=False),
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.LayerNorm2d(4),
        lambda: nn.PReLU(),
        lambda: nn.PReLU(3),
        lambda: nn.TransposedAttention(2),
        lambda: nn.make("linear", in_features=3, out_features=2),
        lambda: nn.DepthwiseConv2d(3, specs=[Spec((1, 2, 4, 4))]),
    ],
)
def test_parameters_are_made_at_once_where_the_fields_fix_their_shapes(
    make: Callable[[], nn.Module],
) -> None:
    assert make().state_dict()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(out_channels=3, kernel_size=1),
        lambda: nn.Conv2d(out_channels=4, kernel_size=1, groups=4),
        lambda: nn.Linear(out_features=3),
        lambda: nn.BatchNorm2d(),
        lambda: nn.GroupNorm(2),
        lambda: nn.PReLU(None),
        lambda: nn.DepthwiseConv2d(3),
        lambda: nn.LayerScale(),
        lambda: nn.Module(Positions()),
    ],
)
def test_parameters_wait_for_the_first_input_where_it_fixes_their_shapes(
    make: Callable[[], nn.Module],
) -> None:
    with pytest.raises(InputError, match="no parameters yet"):
        make().param()


def test_fields_that_fit_no_input_of_the_stated_size_are_an_error_at_once() -> None:
    with pytest.raises(GraphError, match=r"groups \(2\) must divide the input channels \(3\)"):
        nn.Conv2d(3, 8, 3, groups=2)
    with pytest.raises(GraphError, match="groups"):
        nn.GroupNorm(2, 3)


class Positions(Layer):
    """x plus a trained image of the height and width of x."""

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        return {"image": ParameterSpec(tuple(specs["x"].shape[2:]), Constant(0.0))}

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return x + image

    def backward(self, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        return grad_y, grad_y.sum((0, 1))


# -- plugins ------------------------------------------------------------------------------------------


class Swish(Layer):
    """x sigmoid(beta x)."""

    beta: float = 1.0
    dtype: str = "any"

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class Conv2d(Layer):
    """A layer that has the name of a built-in one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1


class Network(Layer):
    """A layer that has the name of a class of graphnet.nn."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1


class SumLoss(Loss):
    """The sum of the differences."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).sum()


class SignDescent(Optimizer):
    """p -= lr sign(grad)."""

    def update(self, parameter: Tensor, grad: Tensor, lr: Tensor) -> None:
        parameter.sub_(lr * grad.sign())


class Acme:
    """A plugin with the definitions above."""

    others: ClassVar[tuple[type[Layer], ...]] = (Swish, Conv2d, Network)

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        for layer in self.others:
            register(f"acme/{layer.__name__.lower()}", layer)

    @hookimpl
    def graphnet_losses(self, register: Register) -> None:
        register("acme/sum_loss", SumLoss)

    @hookimpl
    def graphnet_optimizers(self, register: Register) -> None:
        register("acme/sign", SignDescent)


class Other:
    """Another plugin, with another Swish."""

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("other/swish", type("Swish", (Layer,), {"forward": Swish.forward, "beta": 2.0}))


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(*given: object) -> None:
        registry = load_registry(plugins=list(given), entry_points=False)
        monkeypatch.setattr(nn.registered, "default_registry", lambda: registry)

    return use


def test_plugins_have_their_classes_without_doing_anything(plugins: Callable[..., None]) -> None:
    plugins(Acme())
    swish = nn.Swish(2.0)
    assert repr(swish) == "Swish(beta=2.0)"
    assert type(nn.make("acme/swish", beta=2.0)) is type(swish) is nn.Swish
    x = torch.tensor([1.0])
    assert torch.equal(swish(x), x * torch.sigmoid(2 * x))
    assert nn.Swish(dtype="one").dtype == "one"  # a field goes before an argument of Module
    copy = pickle.loads(pickle.dumps(swish))
    assert (type(copy), copy.layer) == (nn.Swish, swish.layer)
    assert float(nn.SumLoss()(torch.ones(2), torch.zeros(2))) == 2.0
    p, g = torch.tensor([1.0]), torch.tensor([-7.0])
    nn.SignDescent([(p, g)], 0.5).step()
    assert p.item() == 1.5
    assert {"Swish", "SumLoss", "SignDescent"} <= set(dir(nn))


def test_names_that_are_taken_are_reached_by_make(plugins: Callable[..., None]) -> None:
    plugins(Acme(), Other())
    with pytest.raises(
        AttributeError,
        match=r"several 'Swish': use nn.make\('acme/swish'\) or nn.make\('other/swish'\)",
    ):
        nn.Swish
    assert nn.Conv2d.arguments.definition is default_registry().layers["conv2d"].value
    assert nn.Network is nn.network.Network
    for name in ("acme/swish", "acme/conv2d", "acme/network"):
        module = nn.make(name)
        assert type(module) is nn.Module
        assert repr(module) == f"{type(module.layer).__name__}()"
        assert pickle.loads(pickle.dumps(module)).layer == module.layer


# -- optimizers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "named"),
    [
        ("SGD", (0.1, 0.9, 0.0, 0.01, True), {}),
        ("Adam", (0.1, (0.8, 0.9), 1e-6, 0.01), {}),
        ("Adam", (), {}),
        ("AdamW", (0.1, (0.8, 0.9), 1e-6, 0.3), {"amsgrad": False}),
        ("Muon", (1e-3, 0.05, 0.9, False), {}),
    ],
)
@pytest.mark.parametrize("given", ["param", "parameters", "named_parameters"])
def test_optimizers_step_as_torchs_with_the_same_arguments(
    name: str, args: tuple[Any, ...], named: dict[str, Any], given: str
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4, False, dtype=F64), nn.Linear(4, 2, False, dtype=F64))
    leaves = [parameter.clone().requires_grad_() for parameter in net.parameters()]
    mine = getattr(nn, name)(getattr(net, given)(), *args, **named)
    theirs = getattr(torch.optim, name)(leaves, *args, **named)
    for step in range(4):
        for parameter, leaf in zip(net.parameters(), leaves, strict=True):
            leaf.grad = torch.randn(leaf.shape, dtype=F64)
            parameter.grad.copy_(leaf.grad)
        if step == 2:
            mine.lr = theirs.param_groups[0]["lr"] = 0.01
        theirs.step()
        mine.step()
        mine.zero_grad()
        assert not any(parameter.grad.any() for parameter in net.parameters())
    atol = 1e-3 if name == "Muon" else 1e-10  # torch's Muon computes in bfloat16
    for found, leaf in zip(net.parameters(), leaves, strict=True):
        torch.testing.assert_close(found, leaf.detach(), rtol=1e-10, atol=atol)


def test_a_rule_of_its_own_for_some_parameters_has_its_own_learning_rate() -> None:
    net = nn.Sequential(nn.Linear(3, 4, dtype=F64))
    bias = net[0].bias.clone().requires_grad_()
    mine = nn.Muon(net.parameters(), lr=0.1, weight_decay=0.05, adamw_lr=0.02)
    theirs = torch.optim.AdamW([bias], lr=0.02, weight_decay=0.05)
    for step in range(3):
        grad = torch.randn(4, dtype=F64)
        net[0].bias.grad.copy_(grad)
        bias.grad = grad
        if step == 1:  # half the rate for all of them
            mine.lr, theirs.param_groups[0]["lr"] = 0.05, 0.01
        mine.step()
        theirs.step()
    torch.testing.assert_close(net[0].bias, bias.detach(), rtol=1e-10, atol=1e-12)


def test_what_is_no_parameter_is_refused_in_words() -> None:
    net = nn.Linear(2, 2)
    for wrong, found in [
        ([torch.zeros(2)], r"a parameter of shape \(2,\) has no gradient"),
        ([{"params": net.param()}], "got a dict. Make one optimizer for each group"),
        (net.weight, "expected parameters or pairs, .* got a Parameter|got a Tensor"),
        (3, "got a int"),
        ([None], "got a NoneType"),
    ]:
        with pytest.raises(InputError, match=found):
            nn.Adam(wrong)
    text = "Adam(2 parameters, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    assert repr(nn.Adam(net.parameters())) == text


# -- type checkers ------------------------------------------------------------------------------------


def test_a_users_typed_code_trains() -> None:
    first, last = main()
    assert last < first


def test_type_checkers_are_told_of_the_classes_as_they_are() -> None:
    assert PATH.read_text() == stub(), "run `make stub`"

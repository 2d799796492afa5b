"""from_torch: traced models against the torch modules that they come from."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphnet as gn
from benchmarks.traced_networks import (
    MobileNetV2,
    MobileNetV3,
    ResNet18,
    Transformer,
    UNet,
    exact_hardsigmoid,
)
from graphnet.bridges import TracedModel
from graphnet.errors import CheckpointError, GraphError, InputError
from graphnet.model import Model
from graphnet.sdk import (
    Node,
    Operand,
    Register,
    Registry,
    default_registry,
    hookimpl,
    load_registry,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def images(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def traced(module: nn.Module, *inputs: Any) -> TracedModel:
    return gn.from_torch(module.double(), *inputs)


def check_training(module: nn.Module, model: TracedModel, x: Tensor) -> None:
    """Loss, every gradient and every running statistic of one step are those of torch."""
    target = torch.randn_like(copy.deepcopy(module).train()(x))
    rule = {"sgd": {"lr": 0.0, "momentum": 0.9}}  # after a step, the momentum is the gradient
    program = model.compile(x.shape, loss="mse", optimizer=rule, **DOUBLE)
    theirs = copy.deepcopy(module).train()
    loss = F.mse_loss(theirs(x), target)
    loss.backward()
    torch.testing.assert_close(program.step(x, target), loss.detach(), **TIGHT)
    for path, parameter in theirs.named_parameters():
        gradient = program.optimizer_state[f"{model.torch_names[path]}:momentum_buffer"]
        torch.testing.assert_close(gradient, parameter.grad, **TIGHT)
    after = model.state_dict(program.weights)
    for path, buffer in theirs.named_buffers():
        if not path.endswith("num_batches_tracked"):
            torch.testing.assert_close(after[path], buffer, **TIGHT)
    assert list(module.state_dict()) == [p for p in module.state_dict() if p in after]


def check_prediction(module: nn.Module, model: Model, x: Tensor) -> None:
    with torch.no_grad():
        expected = copy.deepcopy(module).eval()(x)
    torch.testing.assert_close(model.predict(x, dtype=torch.float64), expected, **TIGHT)


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (lambda: ResNet18(width=8), [(2, 3, 64, 32), (1, 3, 40, 33)]),
        (lambda: UNet(4), [(2, 3, 8, 12), (1, 3, 20, 4)]),
        (MobileNetV2, [(2, 3, 16, 16), (3, 3, 9, 21)]),
        (lambda: MobileNetV3(hard=exact_hardsigmoid), [(2, 3, 16, 16), (1, 3, 7, 30)]),
    ],
    ids=["resnet18", "unet", "mobilenet_v2", "mobilenet_v3"],
)
def test_a_network_trains_and_predicts_as_in_torch(
    make: Callable[[], nn.Module], sizes: list[tuple[int, ...]]
) -> None:
    module = make()
    model = traced(module, sizes[0])
    assert not model.opaque
    check_training(module, model, images(*sizes[0]))
    for size in sizes:
        check_prediction(module, model, images(*size))


@pytest.mark.parametrize("tied", [False, True])
def test_a_transformer_trains_and_predicts_as_in_torch(tied: bool) -> None:
    module = Transformer(depth=1, tied=tied)
    tokens = torch.randint(0, 17, (2, 7))
    model = traced(module, tokens)
    kinds = {title.split(" ")[0] for title in model.opaque.values()}
    assert kinds == {"aten.arange.default"} | (
        {"aten.embedding.default", "aten.linear.default"} if tied else set()
    )
    assert (model.torch_names["wte.weight"] == model.torch_names["lm_head.weight"]) is tied
    check_training(module, model, tokens)
    check_prediction(module, model, torch.randint(0, 17, (3, 12)))


def test_hardsigmoid_becomes_a_layer() -> None:
    module = MobileNetV3()
    model = traced(module, (2, 3, 16, 16))
    assert not model.opaque
    assert [n.id for n in model.description.layers if n.layer == "hardsigmoid"] == [
        "features_6_hardsigmoid"
    ]
    check_prediction(module, model, images(2, 3, 16, 16))


class Pieces(nn.Module):
    """Numbers that are added, shapes that differ, parts of an axis, and tensors side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(5, 4))
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.positions) * self.scale + 0.5
        x = 1.0 - (x - self.scale - 0.25)
        first, last = x[:, 0], x[:, -1]
        return torch.stack([first, last, x[:, 1:3].mean(1), x[:, ::2, :].sigmoid()[:, 2]], dim=2)


def test_sums_of_other_shapes_and_parts_of_axes_become_layers() -> None:
    module = Pieces()
    model = traced(module, (2, 5, 4))
    assert not model.opaque
    check_training(module, model, images(3, 5, 4))
    check_prediction(module, model, images(1, 5, 4))


class WrittenOut(nn.Module):
    """Attention without a mask, as its equation stands."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v


def test_attention_that_is_written_out_becomes_layers() -> None:
    module = WrittenOut()
    model = traced(module, (2, 5, 6))
    assert not model.opaque
    check_training(module, model, images(3, 5, 6))
    check_prediction(module, model, images(1, 7, 6))


# -- names and weights -------------------------------------------------------------------------------


class Small(nn.Module):
    """A convolution, a norm and an activation, in a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU6(True))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        return y


def test_a_state_dict_goes_there_and_back() -> None:
    module = Small()
    model = gn.from_torch(module, (1, 3, 8, 8))
    assert model.torch_names["stem.0.weight"] == "stem_0.weight"
    assert model.torch_names["stem.1.running_var"] == "stem_1.running_var"
    options = {"loss": "mse", "optimizer": {"sgd": {"lr": 0.1}}, "device": "cpu"}
    program = model.compile((2, 3, 8, 8), **options)
    program.step(torch.rand(2, 3, 8, 8), torch.rand(2, 2, 8, 8))
    other = Small()
    other.load_state_dict(model.state_dict(program.model_weights))
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(program.predict(x), other.eval()(x))
    again = model.with_state_dict(other.state_dict())
    torch.testing.assert_close(again.predict(x), program.predict(x))
    with pytest.raises(InputError, match="has no 'stem.0.weight'"):
        model.with_state_dict({})


def test_the_module_stays_as_it_is() -> None:
    module = Small().eval()
    before = copy.deepcopy(module.state_dict())
    model = gn.from_torch(module, torch.rand(1, 3, 8, 8))
    assert model.weights is not None
    assert not module.training
    model.weights["stem_0.weight"].fill_(7.0)
    assert all(torch.equal(module.state_dict()[path], before[path]) for path in before)


class Twice(nn.Module):
    """One convolution and one norm that are used twice, and a trained scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.gamma = nn.Parameter(torch.randn(4, 1, 1))
        self.register_buffer("table", torch.randn(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(torch.tanh(self.conv(x))))
        return y * self.gamma + y * self.table


def test_shared_parameters_are_shared_and_free_ones_are_nodes() -> None:
    module = Twice()
    model = traced(module, (2, 4, 5, 5))
    first, second = (node for node in model.description.layers if node.layer == "conv2d")
    assert (first.share, second.share) == (None, "conv")
    assert model.torch_names["gamma"] == "gamma.value"
    assert model.torch_names["table"] == "table.value"
    check_training(module, model, images(2, 4, 5, 5))
    check_prediction(module, model, images(1, 4, 3, 8))


def test_a_frozen_parameter_stays_as_it_is_in_training() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    model = gn.from_torch(module, (2, 3))
    assert model.frozen == ("_0.weight", "_0.bias")
    adam = {"adamw": {"lr": 0.1, "weight_decay": 0.1}}
    program = model.compile((2, 3), loss="mse", optimizer=adam, device="cpu")
    program.step(torch.rand(2, 3), torch.rand(2, 2))
    assert model.weights is not None
    assert torch.equal(program.weights["_0.weight"], model.weights["_0.weight"])
    assert not torch.equal(program.weights["_2.weight"], model.weights["_2.weight"])
    plan = model.plan((2, 3), loss="mse", optimizer=gn.AdamW(lr=0.1, weight_decay=0.1))
    assert plan == program.plan  # what `explain` shows is what a training runs


# -- opaque nodes ------------------------------------------------------------------------------------


class Unusual(nn.Module):
    """Operators without a layer: several results, sizes of the input, a mask, integers, a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.norm = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)

    def forward(self, x: Tensor) -> Any:
        n, t, _ = x.shape
        mask = torch.ones(t, t, device=x.device).tril() == 0
        scores = (self.linear(x) @ x.transpose(1, 2)).masked_fill(mask, -1.0)
        values, places = scores.topk(2, dim=2)
        spread = torch.erf(values).sum(dim=2, keepdim=True) * places.float().mean()
        last = self.norm(x.reshape(n, 4, -1))[:, -1] * t
        return spread.expand(n, t, 3), last.cumsum(1)


def test_operators_without_a_layer_are_opaque_nodes_with_torchs_derivative() -> None:
    module = Unusual().double()
    model = traced(module, (2, 8, 6))
    assert "aten.topk.default in the module itself" in model.opaque.values()
    assert "aten.instance_norm.default in norm" in model.opaque.values()
    assert model.torch_names["norm.running_mean"] == "norm.running_mean"
    x, theirs = images(2, 8, 6), copy.deepcopy(module).train()
    targets = [torch.randn_like(y) for y in theirs(x)]
    losses = dict.fromkeys(model.outputs, "mse")
    for executor in ("eager", "reference"):
        program = model.compile(
            x.shape, loss=losses, optimizer={"sgd": {"lr": 1.0}}, executor=executor, **DOUBLE
        )
        theirs = copy.deepcopy(module).train()
        loss = sum(F.mse_loss(y, t) for y, t in zip(theirs(x), targets, strict=True))
        assert isinstance(loss, Tensor)
        loss.backward()
        torch.testing.assert_close(program.step(x, *targets), loss.detach(), **TIGHT)
        after = model.state_dict(program.weights)
        for path, parameter in theirs.named_parameters():
            gradient = module.state_dict()[path] - after[path]
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-14)
        for path, buffer in theirs.named_buffers():
            if not path.endswith("num_batches_tracked"):
                torch.testing.assert_close(after[path], buffer, **TIGHT)
    x = images(1, 4, 6)  # another batch, another length
    with torch.no_grad():
        expected = copy.deepcopy(module).eval()(x)
    for found, y in zip(model.predict(x), expected, strict=True):
        torch.testing.assert_close(found, y, **TIGHT)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        return F.log_softmax(y[:, -1], dim=1)


def test_an_lstm_is_an_opaque_node() -> None:
    module = Recurrent()
    model = traced(module, (2, 5, 3))
    assert "aten.lstm.input in lstm" in model.opaque.values()
    check_training(module, model, images(2, 5, 3))
    check_prediction(module, model, images(1, 5, 3))
    assert torch.backends.mkldnn.enabled


def test_autograd_runs_in_opaque_nodes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    vjp = torch.func.vjp
    monkeypatch.setattr(torch.func, "vjp", lambda *a, **k: runs.append(1) or vjp(*a, **k))
    for module, count in ((nn.Tanh(), 0), (nn.Softsign(), 1)):
        model = gn.from_torch(nn.Sequential(nn.Linear(3, 3), module), (2, 3))
        program = model.compile((2, 3), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
        runs.clear()
        loss = program.step(torch.rand(2, 3), torch.rand(2, 3))
        assert not loss.requires_grad
        assert len(runs) >= count if count else not runs


def test_a_model_without_opaque_nodes_loads_without_torchs_module(tmp_path: Path) -> None:
    module = Small()
    model = traced(module, (1, 3, 16, 16))
    assert not model.opaque
    model.save(tmp_path / "model.safetensors")
    check_prediction(module, gn.load(tmp_path / "model.safetensors"), images(2, 3, 16, 16))


def test_a_model_with_opaque_nodes_loads_with_its_registry_only(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    module = nn.Sequential(nn.Linear(3, 3), nn.Softsign())
    model = traced(module, (2, 3))
    assert model.opaque == {
        "_1": "aten.abs.default in 1",
        "_1_3": "aten.div.Tensor in 1",
    }
    model.save(path)
    with pytest.raises(
        CheckpointError, match="was registered by from_torch .* no file can hold it"
    ):
        gn.load(path)
    again = traced(module, (2, 3))
    check_prediction(module, Model.load(path, registry=again.registry), images(4, 3))
    other = gn.from_torch(nn.Sequential(nn.Linear(3, 3), Power(3)), (2, 3))
    third = gn.from_torch(nn.Sequential(nn.Linear(3, 3), Power(2)), (2, 3))
    other.save(path)
    with pytest.raises(CheckpointError, match="'torch/pow' was version"):
        Model.load(path, registry=third.registry)


class Power(nn.Module):
    def __init__(self, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        return x**self.exponent


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


def with_row(row: Callable[..., Node]) -> Registry:
    class Acme:
        @hookimpl
        def graphnet_operators(self, register: Register) -> None:
            register("aten.erf.default", row)

    return load_registry(plugins=[Acme()], entry_points=False)


def test_a_row_of_a_plugin_replaces_an_opaque_node() -> None:
    def erf(self: Operand) -> Node:
        return Node("tanh", (self,))

    def wrong(x: Operand) -> Node:
        return Node("tanh", (x,))

    assert gn.from_torch(Erf(), (2, 3)).opaque
    model = gn.from_torch(Erf(), (2, 3), registry=with_row(erf))
    assert not model.opaque
    assert [node.layer for node in model.description.layers] == ["tanh"]
    with pytest.raises(InputError, match=r"the row of aten.erf.default names 'x'. Known: self"):
        gn.from_torch(Erf(), (2, 3), registry=with_row(wrong))


def test_rows_name_arguments_that_their_operators_have() -> None:
    rows = default_registry().operators
    assert len(rows) > 50
    for name, entry in rows.items():
        space, operator, overload = name.split(".")
        if space == "module":
            continue
        target = getattr(getattr(torch.ops.aten, operator), overload)
        names = {argument.name for argument in target._schema.arguments}
        asked = {n.removeprefix("eval_") for n in _parameters(entry.value)} - {"result"}
        assert asked <= names, name


def _parameters(row: Any) -> set[str]:

    return set(inspect.signature(row).parameters)


# -- modes, sizes, in-place operators ----------------------------------------------------------------


def test_dropout_runs_in_training_only() -> None:
    module = nn.Sequential(nn.Linear(3, 400), nn.Dropout(0.25), nn.Linear(400, 1))
    model = gn.from_torch(module.eval(), (2, 3))  # the module's own mode makes no difference
    assert [node.layer for node in model.description.layers] == ["linear", "dropout", "linear"]
    x = torch.rand(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(model.predict(x), module(x))


class DependsOnMode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() if self.training else x.sigmoid()


def test_another_graph_in_eval_mode_is_refused() -> None:
    with pytest.raises(InputError, match=r"other operators in train mode .*aten.tanh.default"):
        gn.from_torch(DependsOnMode(), (2, 3))


class Branches(nn.Module):
    """Branches on the height; with `batch`, on the batch."""

    def __init__(self, batch: bool = False) -> None:
        super().__init__()
        self.batch = batch
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        size = x.shape[0] if self.batch else x.shape[2]
        return y * 2 if size > 4 else y


def test_a_size_on_which_the_code_branches_is_fixed() -> None:
    module = Branches()
    model = traced(module, (2, 2, 6, 8))
    (described,) = model.description.inputs.values()
    assert (described.channels, described.height, described.width) == (2, 6, None)
    check_prediction(module, model, images(3, 2, 6, 5))
    with pytest.raises(GraphError, match="height 6"):
        model.predict(images(2, 2, 4, 8))
    with pytest.raises(InputError, match=r"axis 0 must be a batch of any size"):
        traced(Branches(batch=True), (2, 2, 6, 8))


def test_a_size_that_a_weight_fixes_cannot_be_another() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 6, 5))
    model = traced(module, (1, 3, 6, 8))
    check_prediction(module, model, images(2, 3, 6, 8))
    with pytest.raises(GraphError, match="expected 48 features"):
        model.predict(images(2, 3, 6, 9))
    with pytest.raises(GraphError, match="channels 3"):
        model.predict(images(2, 4, 6, 8))


class Writes(nn.Module):
    """Writes in place: fine, through a view, or into a buffer."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2.0
        if self.where == "view":
            y[:, 0] = 0.0
        elif self.where == "buffer":
            self.seen.add_(1.0)
            return y + self.seen
        y += x
        y.tanh_()
        return y.relu_() + y


def test_in_place_operators_are_what_they_return_or_refused() -> None:
    module = Writes("result")
    model = traced(module, (2, 3))
    x = images(4, 3)
    torch.testing.assert_close(model.predict(x), module(x), **TIGHT)
    with pytest.raises(InputError, match="writes into a tensor of which .* is a view"):
        traced(Writes("view"), (2, 3))
    with pytest.raises(InputError, match=r"aten.add_.Tensor writes into 'seen'"):
        traced(Writes("buffer"), (2, 3))


class ReadsValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def test_errors_of_from_torch() -> None:
    with pytest.raises(InputError, match="give an example of each input"):
        gn.from_torch(nn.Tanh())
    with pytest.raises(
        InputError,
        match=r"(?s)cannot trace ReadsValues on \(2, 3\).*test_from_torch.py:.*torch.where",
    ):
        gn.from_torch(ReadsValues(), (2, 3))
    with pytest.raises(InputError, match="cannot trace Linear on"):
        gn.from_torch(nn.Linear(3, 2), (2, 4))
    with pytest.raises(InputError, match="returns its input 'input' unchanged"):
        gn.from_torch(nn.Identity(), (2, 4))
    with pytest.raises(InputError, match="outputs do not depend on the input 'other'"):
        gn.from_torch(First(), (2, 4), (2, 4))


class NormTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.bn(x).relu())
        return y


def test_a_norm_that_runs_twice_trains_as_in_torch() -> None:
    module = NormTwice().double()
    model = gn.from_torch(module, (2, 2, 3, 3))
    program = model.compile(
        (2, 2, 3, 3), loss="mse", optimizer={"sgd": {"lr": 0.1}}, dtype=torch.float64, device="cpu"
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        x, target = torch.randn(2, 2, 2, 3, 3, dtype=torch.float64)
        program.step(x, target)
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), target).backward()
        optimizer.step()
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(program.weights[model.torch_names[name]], tensor)


class First(nn.Module):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x * 2


def test_code_of_the_page_on_from_torch_runs() -> None:
    page = (Path(gn.__file__).parents[1] / "docs" / "from_torch.md").read_text()
    namespace: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S):
        exec(block, namespace)


@pytest.mark.parametrize(
    "rearrange",
    [
        lambda x: x.view(2, -1),
        lambda x: x.as_strided((2, 4), (768, 1)),
        lambda x: torch.view_as_complex(x.view(2, 3, 16, 8, 2)).abs(),
    ],
)
def test_operators_that_read_strides_get_those_of_the_module(rearrange: Any) -> None:
    """A plan lays images of a convolution otherwise: N H W C."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Any:
            return rearrange(self.conv(x))

    x, module = torch.rand(2, 3, 16, 16), Network()
    expected = module(x).detach()
    model = gn.from_torch(module, x)
    torch.testing.assert_close(model.predict(x), expected)
    program = model.compile(tuple(x.shape), loss="mse", optimizer=gn.SGD(lr=0.1))
    assert float(program.step(x, expected + 1)) == pytest.approx(1, abs=1e-5)

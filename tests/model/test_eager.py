"""from_nn and to_nn: modules become a model, a model becomes modules, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet import nn
from graphnet.description import parse
from graphnet.errors import DescriptionError, GraphError, InputError
from graphnet.model import Builder, Model
from graphnet.sdk import Layer

F64 = torch.float64
DENOISERS = Path(gn.__file__).parents[1] / "examples" / "denoisers"


def same(found: Any, expected: Any, *, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, 3, padding=1, dtype=F64)
    return nn.Sequential(
        conv, nn.BatchNorm2d(2, dtype=F64), nn.Sequential(nn.ReLU(), conv), nn.GELU("tanh")
    )


def test_a_chain_becomes_a_model_with_copies_of_its_weights() -> None:
    modules = net()
    x = torch.randn(2, 2, 6, 6, dtype=F64)
    modules(x)  # the statistics of the norm change
    model = gn.from_nn(modules, name="chain")
    assert model.description.name == "chain"
    assert [node.layer for node in model.description.layers] == [
        "conv2d", "batch_norm2d", "relu", "conv2d", "gelu",
    ]  # fmt: skip
    assert [node.share for node in model.description.layers] == [None, None, None, "conv2d_1", None]
    assert dict(model.description.layers[4].config) == {"approximate": "tanh"}
    expected = modules.predict(x)
    same(model.predict(x), expected)
    with torch.no_grad():
        modules[0].weight.zero_()
    same(model.predict(x), expected)


def test_a_compiled_model_and_its_modules_train_alike() -> None:
    modules = net()
    x, target = torch.randn(2, 2, 6, 6, dtype=F64), torch.randn(2, 2, 6, 6, dtype=F64)
    program = gn.from_nn(modules).compile(
        (2, 2, 6, 6), loss="mse", optimizer={"sgd": {"lr": 0.5}}, dtype=F64, device="cpu"
    )
    criterion, optimizer = nn.MSELoss(), nn.SGD(modules.parameters(), lr=0.5)
    for _ in range(3):
        loss = criterion(modules(x), target)
        modules.backward(criterion.backward())
        optimizer.update_parameters()
        same(program.step(x, target), loss)
    trained = gn.to_nn(
        gn.from_nn(net()).with_weights(program.model_weights), (2, 2, 6, 6), dtype=F64
    )
    assert len(trained.param()) == len(modules.param())
    for found, expected in zip(trained.parameters(), modules.parameters(), strict=True):
        same(found, expected)
    same(trained.predict(x), modules.predict(x))


def test_names_become_ids() -> None:
    parts = {"0": nn.ReLU(), "encoder": nn.Linear(2, 3), "in": nn.Sequential(nn.ReLU(), nn.Tanh())}
    model = gn.from_nn(nn.Sequential({**parts, "in_0": nn.Sigmoid()}))
    ids = [node.id for node in model.description.layers]
    assert ids == ["relu_1", "encoder", "in_0", "in_1", "sigmoid_1"]
    assert sorted(model.weights or ()) == ["encoder.bias", "encoder.weight"]
    text = model.description.to_yaml()
    assert parse(model.description.to_data()) == model.description
    assert "encoder" in text


def graph() -> Model:
    make = Builder(name="graph", image=2, level=1)
    image, level = make.inputs
    conv: dict[str, Any] = {"kernel_size": 3, "padding": 1, "out_channels": 2}
    stem = make("conv2d", image, id="stem", **conv)
    twice = make("conv2d", make("relu", stem), id="twice", share=stem, **conv)
    wide = make(
        "conv2d", twice, id="wide", share=stem, kernel_size=3, padding=2, dilation=2, out_channels=2
    )
    parts = make("split", make("batch_norm2d", wide), id="parts", size=1)
    both = make("concat", parts, parts["rest"], level, make("dropout", level, p=0.5))
    make.outputs(make("sigmoid", both, id="y"), parts["rest"])
    return make.model()


def test_a_graph_becomes_a_network_with_the_ids_as_names_and_back() -> None:
    model = graph()
    shapes = (2, 2, 5, 5), (2, 1, 5, 5)
    inputs = [torch.randn(shape, dtype=F64) for shape in shapes]
    modules = gn.to_nn(model, *shapes, dtype=F64)
    assert isinstance(modules, nn.Network)
    assert modules.twice is modules.stem
    assert modules.wide is not modules.stem
    assert modules.wide.weight is modules.stem.weight
    drawn = dict(modules.named_parameters()) | dict(modules.named_buffers())
    model = model.with_weights(drawn)
    same(modules.predict(*inputs), model.predict(*inputs))
    again = gn.from_nn(modules, name="graph")
    assert [node.id for node in again.description.layers] == list(modules._modules)
    assert sorted(again.weights or ()) == sorted(model.weights or ())
    same(again.predict(*inputs), model.predict(*inputs))
    shares = {node.id: node.share for node in again.description.layers if node.share}
    assert shares == {"twice": "stem", "wide": "stem"}


def test_weights_without_a_training_are_those_of_the_seed() -> None:
    model = Model({"layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}]}, seed=7)
    state = torch.get_rng_state()
    modules = gn.to_nn(model, (1, 2, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(1, 2, 4, 4)
    assert isinstance(modules, nn.Sequential)
    same(modules(x), model.predict(x), tolerance=1e-6)
    assert list(modules.state_dict()) == ["conv2d_1.weight", "conv2d_1.bias"]


@pytest.mark.parametrize("name", ["seed", "nafnet", "unet-conditioned"])
def test_examples_become_modules_and_models_again(name: str) -> None:
    model = gn.load(DENOISERS / f"{name}.yaml")
    size = 2 * model.divisor()
    shape = (1, model.input_channels or 3, size, size)
    modules = gn.to_nn(model, shape)
    x = torch.rand(shape)
    expected = model.predict(x)
    same(modules.predict(x), expected, tolerance=1e-4)
    again = gn.from_nn(modules)
    same(again.predict(x), expected, tolerance=1e-4)
    assert {name.replace(".", "_") for name in again.weights or ()} == {
        name.replace(".", "_") for name in modules.state_dict()
    }


def test_one_module_becomes_a_model() -> None:
    x = torch.randn(2, 3)
    model = gn.from_nn(nn.Tanh())
    same(model.predict(x), x.tanh(), tolerance=1e-6)
    merged = gn.from_nn(nn.Subtract())
    assert [*merged.description.inputs] == list(nn.Subtract().input_names() or ())
    same(merged.predict(x, 2 * x), -x, tolerance=1e-6)


def test_inputs_are_stated_as_in_a_model_file() -> None:
    modules = nn.Sequential(nn.Conv2d(3, 2, 1))
    model = gn.from_nn(modules, inputs={"input": {"channels": 3}})
    assert model.input_channels == 3
    with pytest.raises(GraphError, match="expects channels 3"):
        model.graph((1, 4, 2, 2))
    two = gn.from_nn(nn.Subtract(), inputs={"other": {"channels": 2}})  # the order stays
    assert list(two.description.inputs) == ["x", "other"]
    with pytest.raises(DescriptionError, match="inputs.image: nothing uses the input 'image'"):
        gn.from_nn(modules, inputs={"image": {"channels": 3}})
    with pytest.raises(DescriptionError, match="inputs.input.channls: unknown field"):
        gn.from_nn(modules, inputs={"input": {"channls": 3}})


class Unregistered(Layer):
    """A layer that no plugin registers."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1


def test_what_is_no_model_is_refused_in_words() -> None:
    for module, message in [
        (nn.Sequential(nn.ReLU(), nn.MSE()), "MSE.* is a loss: give it to compile"),
        (nn.Module(Unregistered()), r"Unregistered\(\) is of a layer that no plugin registers"),
        (nn.Sequential(nn.LayerScale()), "no parameters yet"),
        (nn.Sequential(), "has no layer"),
        (nn.Concat(), "takes any number of inputs. Put it into an nn.Network"),
    ]:
        with pytest.raises(InputError, match=message):
            gn.from_nn(module)
    model = Model({"layers": ["relu"]})
    with pytest.raises(InputError, match="give the shape of each input"):
        gn.to_nn(model)
    with pytest.raises(InputError, match="to_nn: dtype: expected float32"):
        gn.to_nn(model, (1, 2), dtype=torch.int64)
    with pytest.raises(GraphError, match="expected 1 input shapes"):
        gn.to_nn(model, (1, 2), (1, 2))

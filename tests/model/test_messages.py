"""What a caller gets wrong from Python is one error in words, which says what to write instead."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import graphnet as gn
from graphnet.builtin import ReLU
from graphnet.errors import ContractError, GraphnetError, InputError
from graphnet.sdk import ParameterSpec, StateSpec, default_registry

SHAPE = (1, 3, 4, 4)
SGD = {"sgd": {"lr": 0.1}}
DATA = {"input": {"channels": 3}, "layers": [{"conv2d": {"out_channels": 3, "kernel_size": 1}}]}
MODEL = gn.Model(DATA)


def compiled(*shapes: Any, **changes: Any) -> gn.Program:
    return MODEL.compile(*shapes, **{"loss": "mse", "optimizer": SGD, "device": "cpu", **changes})


def layer(**declared: Any) -> type:
    methods = {"forward": lambda self, x: x, "backward": lambda self, grad_y: grad_y}
    return type("Wrong", (gn.Layer,), {**methods, **declared})


def net() -> gn.Builder:
    return gn.Builder(channels=3)


def weighted(change: Callable[[torch.Tensor], torch.Tensor]) -> gn.Model:
    weights = compiled(SHAPE).weights
    return MODEL.with_weights({name: change(tensor) for name, tensor in weights.items()})


TOKENS = gn.Model(
    {
        "input": {"shape": ["time"], "dtype": "int64"},
        "layers": [{"embedding": {"num_embeddings": 4, "embedding_dim": 2}}],
    }
)
MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "a tensor for a shape": (lambda: compiled(torch.zeros(SHAPE)), r"got a tensor.*tuple\(x.shape\)"),
    "sizes for shapes": (lambda: compiled(*SHAPE), "got the number 1. Give the shape of each input"),
    "floats in a shape": (lambda: compiled((1.0, 3, 4, 4)), r"integers of 0 or more.*got \(1\.0, 3"),
    "a size below 0": (lambda: compiled((1, 3, -4, 4)), r"integers of 0 or more.*-4"),
    "a bool for a size": (lambda: compiled((True, 3, 4, 4)), "integers of 0 or more.*True"),
    "text for a shape": (lambda: compiled("1x3x4x4"), "expected a shape of one size or more.* got '1x3x4x4'"),
    "no shape": (compiled, "expected 1 input shapes"),
    "no loss": (lambda: MODEL.compile(SHAPE, optimizer=SGD), r'loss="mse".*model\.predict'),
    "no optimizer": (lambda: MODEL.compile(SHAPE, loss="mse"), r'optimizer=\{"adam": .*model\.plan'),
    "a field is missing": (
        lambda: compiled(SHAPE, optimizer="sgd"),
        r"^optimizer\.sgd\.lr: must be given. Write \{'sgd': \{'lr': VALUE\}\}",
    ),
    "a class": (lambda: compiled(SHAPE, optimizer=gn.SGD), r"the class SGD .*an instance of it: SGD\("),
    "torch's optimizer": (
        lambda: compiled(SHAPE, optimizer=torch.optim.SGD([torch.zeros(1)], lr=0.1)),
        "^optimizer: expected the name of an optimizer.*its own optimizers, not with those of torch",
    ),
    "torch's loss": (lambda: compiled(SHAPE, loss=torch.nn.MSELoss()), "name of a loss.*own losses"),
    "a layer for an optimizer": (lambda: compiled(SHAPE, optimizer=ReLU()), r"optimizer.*found ReLU\("),
    "a name of no loss": (lambda: compiled(SHAPE, loss="mze"), "unknown loss 'mze'. Did you mean 'mse'"),
    "a text of passes": (lambda: MODEL.plan(SHAPE, without="fusion"), "without: expected a list"),
    "a list for a tensor": (lambda: compiled(SHAPE).step([1.0], [2.0]), "expected a tensor, got a list"),
    "a folder": (lambda: gn.load(Path(__file__).parent), "model: is a folder. Give the path of a model"),
    "a file of torch": (lambda: gn.load("net.pth"), r"torch saved.*gn\.from_torch\(module, example\)"),
    "no batch axis": (lambda: compiled((3, 4, 4)), r"on axis 1, got .*first axis is the batch: \(1, 3, 4, 4"),
    "a copy of a program": (lambda: copy.deepcopy(compiled(SHAPE)), r"cannot be copied.*program\.save"),
    "a pickled program": (lambda: pickle.dumps(compiled(SHAPE)), r"cannot be copied or pickled"),
    "a module to export": (lambda: gn.export(gn.nn.Linear(2, 3), "net.onnx"), r"got a Linear.*gn\.from_nn"),  # type: ignore[arg-type]
    "a module alone": (lambda: gn.export_standalone(gn.nn.Linear(2, 3), "net"), r"got a Linear.*from_nn"),  # type: ignore[arg-type]
    "a model to train": (lambda: gn.train(MODEL, []), r"expected a program, got a Model.*model\.compile"),  # type: ignore[arg-type]
    "a token out of range": (
        lambda: TOKENS.predict(torch.tensor([[4]])),
        r"node 'embedding_1'.*forward failed: IndexError.* token, class label or other index in the range",
    ),
    "a sparse tensor": (lambda: MODEL.predict(torch.zeros(SHAPE).to_sparse()), r"sparse_coo.*to_dense\(\)"),
    "a sparse batch": (lambda: compiled(SHAPE).step(*[torch.zeros(SHAPE).to_sparse()] * 2), "sparse_coo"),
    "no values": (lambda: MODEL.predict(torch.zeros(SHAPE, device="meta")), "with values.*device meta"),
    "a sparse weight": (lambda: weighted(lambda x: x.to_sparse()), "^weights.*dense tensor.*sparse_coo"),
    "a weight without values": (lambda: weighted(lambda x: x.to("meta")), "^weights.*with values"),
    "another batch": (lambda: compiled(SHAPE).step(*[torch.zeros(2, 3, 4, 4)] * 2), "program.with_shapes"),
    "a text for a rate": (lambda: setattr(compiled(SHAPE), "lr", "x"), "lr: expected a number from 0 to .*x"),
    "no number for a rate": (lambda: setattr(compiled(SHAPE), "lr", float("nan")), "lr: .* got nan"),
    "a path for a model": (lambda: gn.Model("seed.yaml"), r"gn\.load\('seed\.yaml'\)"),  # type: ignore[arg-type]
    "a torch module": (lambda: gn.Model(torch.nn.Tanh()), "torch module Tanh"),  # type: ignore[arg-type]
    "a list of weights": (lambda: gn.Model(DATA, weights=[1]), "expected a mapping.*list"),  # type: ignore[arg-type]
    "a model to explain": (lambda: gn.explain(MODEL), r"explain takes a plan, got a Model.*model\.plan"),  # type: ignore[arg-type]
    "a model for its source": (lambda: gn.source(MODEL), "source takes a plan, got a Model"),  # type: ignore[arg-type]
    "a layer for a builder": (lambda: gn.Builder("relu", "x"), r"by name only, got 'relu'.*net\.input"),
    "a name for an input": (lambda: net()("relu", "x"), "relu: expected the output of a node.*'x'"),  # type: ignore[arg-type]
    "a name for an output": (lambda: net().outputs("relu_1"), "outputs: expected the output of a"),  # type: ignore[arg-type]
    "a number for a layer": (lambda: net()(3, net().input), "expected the name of a layer.*got 3"),  # type: ignore[arg-type]
    "a name of no data": (lambda: default_registry().dataset("fotos"), "no such file.*no data set of this"),
    "text for names": (lambda: layer(outputs="y"), r"Wrong\.outputs: .*found 'y'. Write \('y',\)"),
    "text for saves": (lambda: layer(saves="gate"), r"Wrong\.saves: .*Write \('gate',\)"),
    "a list for names": (lambda: layer(updates=["x"]), r"Wrong\.updates: expected a tuple"),
    "numbers for names": (lambda: layer(kept=(1,)), r"Wrong\.kept: expected a tuple of names"),
    "text for a mapping": (lambda: layer(overwrites="y"), r"Wrong\.overwrites: expected a mapping"),
    "text for a bool": (lambda: layer(pointwise="yes"), r"Wrong\.pointwise: expected True or False"),
    "a wrong precision": (lambda: layer(precision="float23"), "Did you mean 'float32'"),
    "a wrong format": (lambda: layer(memory_formats={"x": 1}), r"Wrong\.memory_formats: expected a"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_in_words(mistake: str) -> None:
    make, said = MISTAKES[mistake]
    with pytest.raises(GraphnetError, match=f"(?s){said}"):
        make()


def test_shapes_of_floats_leave_no_wrong_result_behind() -> None:
    model = gn.Model(
        {"input": {"channels": 5}, "layers": ["relu", {"linear": {"out_features": 2}}]}
    )
    with pytest.raises(InputError):
        model.plan((2.0, 5))  # type: ignore[arg-type]
    assert model.predict(torch.zeros(2, 5)).shape == (2, 2)


@pytest.mark.parametrize("shape", [(2.0,), [2], (True,), (-1,), 2, torch.Size([2])])
def test_parameters_have_shapes_of_integers(shape: Any) -> None:
    if isinstance(shape, torch.Size):  # a tuple of integers too
        assert ParameterSpec(shape, gn.Constant(0.0)).shape == (2,)
        return
    for make in (lambda: ParameterSpec(shape, gn.Constant(0.0)), lambda: StateSpec(shape)):
        with pytest.raises(ContractError, match=r"tuple of integers of 0 or more.*with //"):
            make()


def test_a_registered_data_set_without_its_fields_says_how_to_give_them(tmp_path: Path) -> None:
    registry = default_registry()
    (name, *_) = (n for n, e in registry.datasets.items() if "path" in e.value.required())
    with pytest.raises(GraphnetError, match=rf"{name}\.path: must be given. Write \{{'{name}': "):
        registry.dataset(name)


def test_load_takes_a_registry(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("layers: [relu]")
    registry = default_registry()
    assert gn.load(tmp_path / "m.yaml", registry=registry).registry is registry


def test_an_attribute_that_a_program_does_not_have_is_not_set() -> None:
    with pytest.raises(AttributeError, match="a program has no 'learningrate'"):
        compiled(SHAPE).learningrate = 0.1


def test_copies_of_weights_share_nothing_with_them() -> None:
    program = compiled(SHAPE)
    lent = program.weights["conv2d_1.bias"]
    for copied in (copy.deepcopy(program.weights), pickle.loads(pickle.dumps(program.weights))):
        assert torch.equal(copied["conv2d_1.bias"], lent)
        copied["conv2d_1.bias"].fill_(7.0)
        assert not torch.equal(copied["conv2d_1.bias"], lent)

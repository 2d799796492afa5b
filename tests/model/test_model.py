"""A model as torch users expect one: copies, pickles, summaries, short texts, weights of another model."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.errors import InputError
from graphnet.model import Model
from graphnet.sdk import default_registry

SHAPE = (2, 3, 8, 8)


def network(classes: int = 3, **first: Any) -> dict[str, Any]:
    return {
        "name": "net",
        "input": {"channels": 3},
        "layers": [
            {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}, "id": "stem", **first},
            {"relu": {}, "id": "r"},
            {"conv2d": {"out_channels": classes, "kernel_size": 1, "bias": False}, "id": "head"},
        ],
    }


def weights(classes: int = 3, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "stem.weight": (4, 3, 3, 3),
        "stem.bias": (4,),
        "head.weight": (classes, 4, 1, 1),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def by_torch(w: dict[str, Tensor], x: Tensor) -> Tensor:
    y = torch.conv2d(x, w["stem.weight"], w["stem.bias"], padding=1).relu()
    return torch.conv2d(y, w["head.weight"])


@pytest.mark.parametrize("when", ["new", "predicted", "trained"])
@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle"])
def test_a_copy_predicts_the_same_and_has_weights_of_its_own(way: str, when: str) -> None:
    model, x = Model(network(), weights=weights()), torch.rand(SHAPE)
    if when == "predicted":
        model.predict(x)
    if when == "trained":
        program = model.compile(SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
        program.step(x, torch.zeros(SHAPE))
        model.set_weights(program.model_weights)
    ways = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    }
    other = ways[way](model)
    before = model.predict(x)
    assert torch.equal(other.predict(x), before)
    assert other.registry is default_registry()
    other.set_weights({"stem.bias": torch.ones(4)})
    assert torch.equal(model.predict(x), before)
    assert not torch.equal(other.predict(x), before)


def test_a_model_without_weights_is_copied_too() -> None:
    model, x = Model(network(), seed=3), torch.rand(SHAPE)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.weights is None
        assert torch.equal(other.predict(x), model.predict(x))


def test_weights_of_another_model_are_taken_by_name_and_shape() -> None:
    given = {**weights(classes=5, seed=1), "old.bias": torch.zeros(2)}
    del given["stem.bias"]
    model, x = (
        Model(network(), weights=weights()).with_weights(given, strict=False),
        torch.rand(SHAPE),
    )
    expected = {**weights(), "stem.weight": given["stem.weight"]}
    torch.testing.assert_close(model.predict(x), by_torch(expected, x))
    assert model.taken is not None
    assert model.taken.names == ("stem.weight",)
    assert model.taken.missing == ("stem.bias",)
    assert model.taken.other_shape == {"head.weight": ((3, 4, 1, 1), (5, 4, 1, 1))}
    assert model.taken.unknown == ("old.bias",)
    assert str(model.taken) == (
        "took 1 of 3 weights. Not given, so kept: stem.bias. Of another shape, so kept: head.weight, "
        "expected (3, 4, 1, 1), given (5, 4, 1, 1). Not in this model: old.bias."
    )


def test_what_is_not_given_is_drawn_where_the_model_has_no_weights() -> None:
    model, x = Model(network(), seed=5), torch.rand(SHAPE)
    with pytest.raises(
        InputError, match=r"no weights yet.*with_weights\(weights, \(1, 3, 64, 64\)"
    ):
        model.with_weights({}, strict=False)
    drawn = model.with_weights({}, SHAPE, strict=False)
    assert torch.equal(drawn.predict(x), model.predict(x))
    other = model.with_weights({"stem.bias": torch.ones(4)}, SHAPE, strict=False)
    assert drawn.weights is not None
    expected = {**drawn.weights, "stem.bias": torch.ones(4)}
    torch.testing.assert_close(other.predict(x), by_torch(expected, x))
    assert model.weights is None


def test_a_summary_has_shapes_parameters_and_operations() -> None:
    summary = Model(network()).summary(SHAPE)
    assert [row.output for row in summary.rows] == [(2, 4, 8, 8), (2, 4, 8, 8), (2, 3, 8, 8)]
    assert [row.parameters for row in summary.rows] == [4 * 27 + 4, 0, 3 * 4]
    pixels = 2 * 8 * 8
    flops = [pixels * 4 * (2 * 27 + 1), pixels * 4, pixels * 3 * 2 * 4]  # products, bias, relu
    assert [row.flops for row in summary.rows] == flops
    lines = str(summary).splitlines()
    assert lines[0].split() == ["node", "layer", "output", "parameters", "FLOPs"]
    assert lines[1].split()[:4] == ["stem", "conv2d", "2x4x8x8", "112"]
    assert lines[-1].startswith("net: 3 nodes, 124 parameters, ")
    assert "<td>stem</td><td>conv2d</td><td>2x4x8x8</td>" in summary._repr_html_()


def test_a_shared_parameter_counts_once() -> None:
    data = {
        "input": {"channels": 3},
        "layers": [
            {"conv2d": {"out_channels": 3, "kernel_size": 1}, "id": "a"},
            {"conv2d": {"out_channels": 3, "kernel_size": 1}, "id": "b", "share": "a"},
        ],
    }
    summary = Model(data).summary((1, 3, 4, 4))
    assert [row.parameters for row in summary.rows] == [12, 0]


def test_texts_of_objects_are_short() -> None:
    model = Model(network(), weights=weights())
    assert repr(model) == "Model('net', 3 nodes, 124 weights)"
    assert repr(Model(network())) == "Model('net', 3 nodes, no weights yet)"
    program = model.compile(SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
    assert repr(program) == f"Program('net' on cpu, {program.plan}, 0 steps done)"
    assert repr(program.plan) == f"Plan({program.plan})"
    net = gn.Builder(channels=3)
    net("relu", net.input)
    assert repr(net) == "Builder('model', inputs $input, 1 nodes)"
    assert repr(default_registry()).startswith("Registry(")
    for text in map(repr, (model, program, program.plan, net, default_registry())):
        assert len(text) < 400


def test_notebooks_show_tables_in_which_texts_are_escaped(tmp_path: Path) -> None:
    model = Model(network())
    shown = model._repr_html_()
    assert "<td>conv2d</td><td>out_channels: 4, kernel_size: (3, 3), padding: (1, 1)</td>" in shown
    assert "padding_mode" not in shown
    plan = model.plan(SHAPE)
    assert plan._repr_html_().count("<tr>") == len(plan.steps) + 1
    assert "<b>" not in Model({**network(), "name": "<b>"})._repr_html_()

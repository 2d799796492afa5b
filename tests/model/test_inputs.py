"""Inputs and targets of any shape and of integers, stated in a description and by a loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import graphnet as gn
from graphnet.description import InputDescription, model_schema, parse, parse_text
from graphnet.errors import (
    DataError,
    DescriptionError,
    GraphError,
    GraphnetError,
    InputError,
    LayerError,
)
from graphnet.inspection import Gradients, time_steps
from graphnet.model import Builder
from graphnet.sdk import Cast, Convert, DataSet, Loss, Pairs, Registry, Spec, Stream, load_registry
from graphnet.training import Trainer
from graphnet.training.config import make_job
from tests.support.oracle import relative_error

CHARACTERS = """
input: {shape: [time], dtype: int64}
layers:
  - embedding: {num_embeddings: 11, embedding_dim: 8}
  - {id: in, position_embedding: {max_length: 16}}
  - {id: norm, layer_norm: {}}
  - {id: q, linear: {out_features: 8}, inputs: [norm]}
  - {id: k, linear: {out_features: 8}, inputs: [norm]}
  - {id: v, linear: {out_features: 8}, inputs: [norm]}
  - {attention: {num_heads: 2, causal: true}, inputs: [q, k, v]}
  - {id: mixed, linear: {out_features: 8}}
  - {id: out, add: {}, inputs: [in, mixed]}
  - linear: {out_features: 11}
  - permute: {dims: [0, 2, 1]}
"""
MODEL = gn.Model(parse_text(CHARACTERS))
OPTIONS: dict[str, Any] = {"loss": "cross_entropy", "optimizer": gn.SGD(lr=0.1), "device": "cpu"}


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 11, shape, generator=torch.Generator().manual_seed(seed))


def in_torch(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    h = F.embedding(x, w["embedding_1.weight"]) + w["in.weight"][: x.shape[1]]
    n = F.layer_norm(h, (8,), w["norm.weight"], w["norm.bias"])
    q, k, v = (
        F.linear(n, w[f"{i}.weight"], w[f"{i}.bias"]).unflatten(2, (2, 4)).transpose(1, 2)
        for i in "qkv"
    )
    a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    h = h + F.linear(a, w["mixed.weight"], w["mixed.bias"])
    return F.linear(h, w["linear_1.weight"], w["linear_1.bias"]).mT


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("executor", ["eager", "reference"])
def test_a_step_on_tokens_equals_torchs(kernels: str, executor: str) -> None:
    program = MODEL.compile(
        (3, 9), **OPTIONS, dtype=torch.float64, kernels=kernels, executor=executor
    )
    x, target = tokens(3, 9), tokens(3, 9, seed=1)
    weights = {name: w.clone().requires_grad_() for name, w in program.weights.items()}
    loss = F.cross_entropy(in_torch(x, weights), target)
    loss.backward()
    assert program.step(x, target).item() == pytest.approx(loss.item(), rel=1e-12)
    for name, w in weights.items():
        assert w.grad is not None
        assert relative_error(program.weights[name], (w - 0.1 * w.grad).detach()) < 1e-12, name


@pytest.mark.slow
def test_inductor_runs_a_step_on_tokens() -> None:
    layers = [
        {"embedding": {"num_embeddings": 11, "embedding_dim": 4}},
        {"linear": {"out_features": 11}},
        {"permute": {"dims": [0, 2, 1]}},
    ]
    small = gn.Model({"input": {"shape": ["time"], "dtype": "int64"}, "layers": layers})
    losses = [
        small.compile((2, 5), **OPTIONS, executor=executor).step(tokens(2, 5), tokens(2, 5)).item()
        for executor in ("eager", "inductor")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_casts_no_integers(precision: str) -> None:
    plan = MODEL.plan((3, 9), **OPTIONS, precision=precision)
    given = [plan.values[name].spec.dtype for name in plan.inputs]
    assert given == [torch.int64, torch.int64]
    narrow = getattr(torch, precision)
    assert any(value.spec.dtype == narrow for value in plan.values.values())
    casts = [step.call for step in plan.steps if isinstance(step.call.layer, Cast | Convert)]
    assert casts
    read = {plan.values[name].spec.dtype for call in casts for name in call.reads()}
    assert all(dtype.is_floating_point for dtype in read)
    program = MODEL.compile((3, 9), **OPTIONS, precision=precision)
    exact = MODEL.compile((3, 9), **OPTIONS)
    loss = program.step(tokens(3, 9), tokens(3, 9, seed=1)).item()
    assert loss == pytest.approx(exact.step(tokens(3, 9), tokens(3, 9, seed=1)).item(), rel=2e-2)


def test_prediction_takes_tokens_of_any_length() -> None:
    weights = MODEL.compile((1, 4), **OPTIONS).weights
    model = MODEL.with_weights(weights)
    for length in (4, 7):
        expected = in_torch(tokens(2, length), dict(weights))
        torch.testing.assert_close(model.predict(tokens(2, length)), expected)
    module = gn.as_torch_module(model, (1, 4))
    torch.testing.assert_close(module(tokens(2, 7)).detach(), expected)
    wide = model.predict(tokens(2, 7), dtype=torch.float64)
    assert wide.dtype == torch.float64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2, 4), r"input 'input' \(shape \[time\], dtype int64\): expected a tensor of int64"
         r", got 2x4 float32. Convert it with x.long"),
        (tokens(2, 4).int(), "expected a tensor of int64, got 2x4 int32"),
        (np.zeros((2, 4)), "expected a tensor of int64, got 2x4 float64. Convert it with x.long"),
        ([[0, 1]], "Make a tensor of it: torch.as_tensor"),
        (tokens(2, 4, 3), r"\(shape \[time\], dtype int64\): expected 2 axes.* got the shape \(2, 4, 3\)"),
    ],
)  # fmt: skip
def test_another_input_than_the_stated_one_is_refused(given: Any, message: str) -> None:
    with pytest.raises(GraphnetError, match=message):
        MODEL.predict(given)
    if isinstance(given, Tensor):
        with pytest.raises(GraphnetError, match=message):
            gn.as_torch_module(MODEL, (2, 4))(given)


def test_a_step_names_the_input_or_target_that_does_not_fit() -> None:
    program = MODEL.compile((2, 4), **OPTIONS)
    with pytest.raises(InputError, match=r"^input: expected 2x4 int64, got 2x5 int64"):
        program.step(tokens(2, 5), tokens(2, 4))
    with pytest.raises(InputError, match=r"^target: expected 2x4 int64, .*float32.*x.long"):
        program.step(tokens(2, 4), torch.zeros(2, 4))


def test_a_token_outside_of_the_table_names_the_node() -> None:
    program = MODEL.compile((1, 2), **OPTIONS)
    with pytest.raises(LayerError, match="embedding_1"):
        program.step(torch.tensor([[3, 11]]), tokens(1, 2))


def test_equal_names_mean_equal_sizes() -> None:
    data = {
        "inputs": {"a": {"shape": [3, "time"]}, "b": {"shape": ["channels", "time"]}},
        "layers": [{"concat": {}, "inputs": ["$a", "$b"]}],
    }
    model = gn.Model(data)
    assert model.predict(torch.zeros(2, 3, 7), torch.zeros(2, 1, 7)).shape == (2, 4, 7)
    with pytest.raises(
        GraphError, match=r"input 'b' .* expected time 7 on axis 2, as in input 'a'"
    ):
        model.graph((2, 3, 7), (2, 3, 8))
    with pytest.raises(GraphError, match=r"input 'a' expects 3 on axis 1, got the shape \(2, 4, 7"):
        model.graph((2, 4, 7), (2, 3, 7))
    assert model.input_channels == 3


def test_the_form_of_images_means_what_it_meant() -> None:
    model = gn.Model({"input": {"channels": 3, "width": 8}, "layers": ["relu"]})
    model.graph((1, 3, 5, 8))
    free = gn.Model({"input": {"channels": 3}, "layers": ["relu"]})
    free.graph((1, 3))  # any number of axes
    assert free.divisor() == 1
    with pytest.raises(GraphError, match="input 'input' expects width 8 on axis 3"):
        model.graph((1, 3, 5, 7))


def test_descriptions_read_back_equal() -> None:
    description = parse_text(CHARACTERS)
    assert description.inputs["input"] == InputDescription(shape=("time",), dtype="int64")
    assert parse_text(description.to_yaml()) == description
    assert parse(description.to_data()) == description
    assert parse({"input": {"shape": []}, "layers": ["relu"]}).inputs["input"].shape == ()


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"shape": [0]}, r"input.shape.*integers greater than 0 or names, found \[0\]"),
        ({"shape": "time"}, "input.shape.*a list of sizes.*found 'time'"),
        ({"shape": [True]}, "input.shape.*a list of sizes"),
        ({"shape": [3], "channels": 3}, "either shape, or channels, height and width"),
        ({"dtype": "int46"}, "input.dtype: expected float32, .*int64.* found 'int46'"),
        ({"dtype": 64}, "input.dtype"),
    ],
)
def test_wrong_statements_are_refused(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        parse({"input": stated, "layers": ["relu"]})


def test_the_schema_has_the_stated_shape_and_dtype() -> None:
    fields = model_schema(load_registry(entry_points=False))["properties"]["input"]["anyOf"][0]
    assert {"shape", "dtype", "channels"} <= set(fields["properties"])


def test_a_floating_dtype_is_that_of_the_compilation() -> None:
    model = gn.Model({"input": {"shape": [3], "dtype": "float32"}, "layers": ["relu"]})
    assert model.predict(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64
    mask = gn.Model(
        {
            "inputs": {"x": {"shape": ["n"]}, "mask": {"shape": ["n"], "dtype": "bool"}},
            "layers": [{"test/masked": {}, "inputs": ["$x", "$mask"]}],
        },
        registry=_registry(),
    )
    x, keep = torch.ones(1, 2), torch.tensor([[True, False]])
    assert mask.predict(x, keep).tolist() == [[1.0, 0.0]]
    with pytest.raises(InputError, match="input 'mask' .* expected a tensor of bool"):
        mask.predict(x, x)


class Masked(gn.Layer):
    """x where a mask is true, else 0."""

    nondifferentiable = ("mask",)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask

    def backward(self, grad_y: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        return grad_y * mask, None


def test_a_builder_takes_inputs_of_any_description() -> None:
    net = Builder(tokens=InputDescription(shape=("time",), dtype="int64"))
    net("embedding", net.input, num_embeddings=4, embedding_dim=2)
    assert net.model().predict(torch.tensor([[1, 2, 3]])).shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Builder(channels="3"), "channels: expected an integer greater than 0, found '3'"),
        (lambda: Builder(channels=0), "channels: expected an integer greater than 0, found 0"),
        (lambda: InputDescription(width=True), "width: expected an integer .* found True"),
        (
            lambda: Builder(channels=3, x=5),
            "channels are those of the only input, but x is given too",
        ),
    ],
)
def test_wrong_statements_in_python_are_refused(make: Any, message: str) -> None:
    with pytest.raises((DescriptionError, InputError), match=message):
        make()


@pytest.mark.parametrize("kernels", ["reference", "auto"])
def test_a_node_may_have_the_name_of_an_input(kernels: str) -> None:
    """`$m` is the input, `m` the node."""
    layers = [{"id": "m", "relu": {}, "inputs": ["$x"]}, {"add": {}, "inputs": ["m", "$m"]}]
    model = gn.Model({"inputs": {"x": {}, "m": {}}, "layers": layers})
    x, m = torch.tensor([[-1.0, 0.5]]), torch.tensor([[3.0, 4.0]])
    assert model.predict(x, m, kernels=kernels).tolist() == [[3.0, 4.5]]
    assert gn.to_nn(model, (1, 2), (1, 2))(x, m).tolist() == [[3.0, 4.5]]
    block = {"inputs": ["x"], "layers": ["relu"]}
    inside = gn.Model(
        {"inputs": {"x": {}}, "blocks": {"b": block}, "layers": [{"id": "x", "b": {}}]}
    )
    assert inside.predict(x, kernels=kernels).tolist() == [[0.0, 0.5]]


def test_an_input_that_is_no_image_has_no_divisor_and_no_tiles() -> None:
    with pytest.raises(GraphError, match=r"input 'input' \(shape \[time\].* is no image"):
        MODEL.divisor()
    with pytest.raises(InputError, match="image"):
        MODEL.predict(tokens(2, 9), memory="1KiB")


def test_tools_run_plans_on_tokens() -> None:
    plan = MODEL.plan((2, 5), **OPTIONS)
    assert "cross_entropy" in gn.explain(plan)
    assert len(time_steps(plan, rounds=1, warm_up=0).steps) == len(plan.steps)
    found = Gradients.of(MODEL, (2, 5), loss="cross_entropy")
    assert found.loss > 0
    with pytest.raises(InputError, match="data: target: expected a tensor of int64"):
        Gradients.of(MODEL, (2, 5), loss="cross_entropy", data=(tokens(2, 5), torch.zeros(2, 5)))
    namespace: dict[str, Any] = {"__name__": "plan"}
    exec(gn.source(plan), namespace)
    assert namespace["ARGUMENTS"]["x"].dtype == torch.int64


class Labelled(Loss):
    """The squared distance to a centre that a label names, weighted by a bool for each sample."""

    nondifferentiable = ("target", "counts")

    def target_spec(self, prediction: Spec, name: str) -> Spec:
        dtype = torch.bool if name == "counts" else torch.int32
        return Spec(prediction.shape[:1], dtype, prediction.device)

    def forward(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return ((prediction - target[:, None]).square() * counts[:, None]).sum()

    def backward(
        self, grad_loss: Tensor, prediction: Tensor, target: Tensor, counts: Tensor
    ) -> tuple[Tensor, None, None]:
        return grad_loss * 2 * (prediction - target[:, None]) * counts[:, None], None, None


class LabelledStream(Stream):
    input_shape = (3,)
    target_shapes = {"target": (), "counts": ()}

    def __init__(self, counts: torch.dtype) -> None:
        self.counts = counts

    def __len__(self) -> int:
        return 8

    def batch(self, seed: int, epoch: int, indices: Any) -> tuple[Tensor, ...]:
        index = torch.as_tensor(indices)
        x = torch.rand(len(indices), 3, generator=torch.Generator().manual_seed(epoch))
        return x, index.to(torch.uint8), (index % 2 == 0).to(self.counts)


class StreamSet(DataSet):
    counts: str = "bool"

    def load(self) -> Stream:
        return LabelledStream(getattr(torch, self.counts))


class Digits(DataSet):
    kind: str = "uint8"
    shape: tuple[int, ...] = ()

    def load(self) -> Pairs:
        x = torch.rand(24, 6, generator=torch.Generator().manual_seed(0))
        labels = x.topk(1).indices[:, 0]
        dtype = getattr(torch, self.kind)
        return Pairs(
            x, labels.to(dtype).reshape(-1, *[1] * len(self.shape)).expand(-1, *self.shape)
        )


def _registry() -> Registry:
    class Plugin:
        @gn.hookimpl
        def graphnet_layers(self, register: Any) -> None:
            register("test/masked", Masked)

        @gn.hookimpl
        def graphnet_losses(self, register: Any) -> None:
            register("test/labelled", Labelled)

        @gn.hookimpl
        def graphnet_datasets(self, register: Any) -> None:
            register("test/digits", Digits)
            register("test/stream", StreamSet)

    return load_registry(entry_points=False, plugins=[Plugin()])


def trainer(**fields: Any) -> Trainer:
    given: dict[str, Any] = {
        "model": {"input": {"shape": [6]}, "layers": [{"linear": {"out_features": 6}}]},
        "data": {"train": {"test/digits": {}}, "validation": {"test/digits": {}}},
        "loss": "cross_entropy",
        "optimizer": {"sgd": {"lr": 1.0}},
        "epochs": 2,
        "batch_size": 4,
        "metrics": ["accuracy"],
        **fields,
    }
    return Trainer(make_job(given, registry=_registry()))


def test_a_training_on_class_labels_measures_accuracy(tmp_path: Path) -> None:
    made = trainer(epochs=30)
    records = list(made.run())
    assert records[-1].metrics["accuracy"] > 0.8  # type: ignore[union-attr]
    module = torch.nn.Linear(6, 6)
    weights = made.program.model_weights
    module.load_state_dict({"weight": weights["linear_1.weight"], "bias": weights["linear_1.bias"]})
    pairs = Digits().load()
    share = (module(pairs.inputs).argmax(1) == pairs.targets).float().mean().item()
    assert records[-1].metrics["accuracy"] == pytest.approx(share)  # type: ignore[union-attr]


def test_a_stream_makes_labels_and_masks() -> None:
    model = {"input": {"shape": [3]}, "layers": [{"linear": {"out_features": 2}}]}
    settings: dict[str, Any] = {"model": model, "loss": "test/labelled", "metrics": []}
    settings["optimizer"] = {"sgd": {"lr": 0.01}}
    made = trainer(**settings, data={"train": {"test/stream": {}}})
    dtypes = [value.spec.dtype for value in made.feed.values]
    assert dtypes == [torch.float32, torch.int32, torch.bool]
    assert len(list(made.run())) > 0
    wrong = trainer(**settings, data={"train": {"test/stream": {"counts": "float32"}}})
    with pytest.raises(DataError, match=r"counts: expected bool, .* found float32 in the data"):
        list(wrong.run())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": {"train": {"test/digits": {"kind": "float32"}}}, "metrics": []},
         "the data: target: expected int64, .* found float32"),
        ({"data": {"train": {"test/digits": {"shape": (6,)}}}, "metrics": []},
         r"the loss takes a target \(\), but the data set's is \(6,\)"),
        ({"loss": ["cross_entropy", "mse"]},
         "the loss 'mse' takes a target 4x6 float32, but another loss .* takes 4 int64"),
        ({"model": {"input": {"shape": [7]}, "layers": [{"linear": {"out_features": 6}}]}},
         r"input 'input' expects 7 on axis 1, got the shape \(4, 6\)"),
        ({"model": {"input": {"shape": ["n"], "dtype": "int64"}, "layers": [
            {"embedding": {"num_embeddings": 3, "embedding_dim": 2}}, {"mean": {"dim": 1}}]}},
         "the data: input: expected int64, .* found float32"),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_refused_before_the_first_step(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(GraphnetError, match=message):
        trainer(**fields)

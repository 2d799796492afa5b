"""Gradients that can be seen: paths and norms against autograd, and bad values traced to their origin."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor

from graphnet.cli.gradients import gradients
from graphnet.errors import DataError, GraphError, InputError, TrainingError
from graphnet.graph import Kind
from graphnet.inspection import Gradients, first_nonfinite
from graphnet.inspection.nonfinite import NonFinite, Statistics
from graphnet.inspection.walk import complete, walk
from graphnet.model import Model
from graphnet.sdk import Layer, Register, Registry, hookimpl, load_registry
from graphnet.training import Trainer
from graphnet.training.batches import MemoryBatches
from tests.support.models import SEED, Acme, random_dag
from tests.training.test_trainer import Data, job

ROOT = Path(__file__).parents[2]
CONV = {"conv2d": {"out_channels": 3, "kernel_size": 3, "padding": 1}}
# x -> a -> relu -> b (shares a) -> skip = b + x; by hand: two paths for a.weight, one for relu_1.y.
SHARED: dict[str, Any] = {
    "input": {"channels": 3},
    "layers": [
        {"id": "a", **CONV},
        "relu",
        {"id": "b", **CONV, "share": "a"},
        {"id": "skip", "add": {}, "inputs": ["b", "$input"]},
    ],
}


class Root(Layer):
    """sqrt(x): its gradient is infinite at 0, where its value is fine."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()

    def backward(self, grad_y: Tensor, x: Tensor) -> Tensor:
        return grad_y / (2 * x.sqrt())


class Exp(Layer):
    """exp(x), which overflows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()

    def backward(self, grad_y: Tensor, y: Tensor) -> Tensor:
        return grad_y * y


class Masked(Layer):
    """exp of x with -inf in its first column: the mask is not finite, what comes of it is."""

    outputs: ClassVar[tuple[str, ...]] = ("y",)
    saves: ClassVar[tuple[str, ...]] = ("masked",)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        masked = x.clone()
        masked[..., 0] = -torch.inf
        return masked.exp(), masked

    def backward(self, grad_y: Tensor, masked: Tensor) -> Tensor:
        return grad_y * masked.exp()


class Wrong(Data):
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        for layer in (Root, Exp, Masked):
            register(f"wrong/{layer.__name__.lower()}", layer)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Wrong(), Acme()], entry_points=False)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


# -- paths -------------------------------------------------------------------------------------------


def shared() -> tuple[Gradients, dict[str, Tensor]]:
    found = Gradients.of(
        Model(SHARED),
        (2, 3, 6, 6),
        data=[drawn(2, 3, 6, 6), drawn(2, 3, 6, 6, seed=1)],
        dtype=torch.float64,
    )
    return found, {row.name: found._values[row.name] for row in found.parameters}


def test_the_parts_of_a_shared_weight_are_those_of_autograd_with_one_use_at_a_time() -> None:
    found, weights = shared()
    x, target = drawn(2, 3, 6, 6), drawn(2, 3, 6, 6, seed=1)
    parts = []
    for use in range(2):
        w = [weights["a.weight"].clone().requires_grad_(use == i) for i in range(2)]
        h = F.relu(F.conv2d(x, w[0], weights["a.bias"], padding=1))
        loss = F.mse_loss(F.conv2d(h, w[1], weights["a.bias"], padding=1) + x, target)
        parts.append(torch.autograd.grad(loss, w[use])[0])
    whole = parts[0] + parts[1]
    expected = {
        ("a", "relu_1", "b", "skip", "@loss"): parts[0],
        ("b", "skip", "@loss"): parts[1],
    }
    seen = found.paths("a.weight")
    assert seen.norm == pytest.approx(float(whole.norm()), rel=1e-10)
    assert {path.nodes for path in seen.paths} == set(expected)
    for path in seen.paths:
        part = expected[path.nodes]
        assert path.merged is None
        assert path.norm == pytest.approx(float(part.norm()), rel=1e-10)
        share = float((part * whole).sum() / (whole * whole).sum())
        assert path.share == pytest.approx(share, rel=1e-10)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    torch.testing.assert_close(found.gradient("a.weight"), whole, rtol=1e-10, atol=1e-12)


def test_the_table_holds_every_parameters_norms() -> None:
    found, weights = shared()
    rows = {row.name: row for row in found.parameters}
    assert list(rows) == ["a.weight", "a.bias"]
    row = rows["a.weight"]
    assert (row.shape, row.contributions) == ((3, 3, 3, 3), 2)
    assert row.value_norm == pytest.approx(float(weights["a.weight"].norm()))
    assert row.ratio == pytest.approx(row.gradient_norm / row.value_norm)
    assert found.names("a") == ("a.weight", "a.bias", "a.y")
    assert found.names("a.bias") == ("a.bias",)


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_paths_add_up_to_the_gradient_whatever_the_limit(
    seed: int, limit: int, registry: Registry
) -> None:
    """Shared parameters, values used twice by one node, two outputs, one of them unused by some."""
    model = Model(random_dag(9, seed), registry=registry)
    found = Gradients.of(model, (2, 4, 5, 5), dtype=torch.float64)
    for name in ("n0.weight", "n0.y", "n3.y"):
        seen = found.paths(name, limit=limit)
        assert 1 <= len(seen.paths) <= limit
        assert sum(path.share for path in seen.paths) == pytest.approx(1.0, abs=1e-10)
        whole = sum(found._part(tail, edges) for tail, edges in found._split(name, limit))
        torch.testing.assert_close(whole, found.gradient(name), rtol=1e-10, atol=1e-14)
    if limit == 1000:
        assert all(path.merged is None for path in seen.paths)


def test_a_value_given_twice_to_one_node_counts_both_uses() -> None:
    model = Model(
        {"layers": [{"id": "c", "conv2d": {"out_channels": 1, "kernel_size": 1}},
                    {"id": "sum", "add": {}, "inputs": ["c", "c"]}]}
    )  # fmt: skip
    found = Gradients.of(model, (1, 1, 2, 2))
    seen = found.paths("c.y")
    assert [path.nodes for path in seen.paths] == [("sum", "@loss")] * 2
    assert [path.share for path in seen.paths] == pytest.approx([0.5, 0.5])


def test_equal_nodes_are_paths_of_their_own() -> None:
    layers = [
        {"id": "c", "conv2d": {"out_channels": 1, "kernel_size": 1}},
        {"id": "a", "sigmoid": {}, "inputs": ["c"]},
        {"id": "b", "sigmoid": {}, "inputs": ["c"]},
        {"id": "sum", "add": {}, "inputs": ["a", "b"]},
    ]
    seen = Gradients.of(Model({"layers": layers}), (1, 1, 2, 2)).paths("c.y")
    assert {path.nodes for path in seen.paths} == {("a", "sum", "@loss"), ("b", "sum", "@loss")}
    assert [path.share for path in seen.paths] == pytest.approx([0.5, 0.5])


def test_no_path_goes_by_an_output_that_nobody_used(registry: Registry) -> None:
    layers = [
        {"id": "c", "conv2d": {"out_channels": 2, "kernel_size": 1}},
        {"id": "h", "acme/halves": {}},
    ]
    model = Model({"layers": [*layers, {"relu": {}, "inputs": ["h.second"]}]}, registry=registry)
    seen = Gradients.of(model, (1, 1, 2, 2)).paths("c.y")
    assert [path.nodes for path in seen.paths] == [("h", "relu_1", "@loss")]


def test_two_losses_are_two_paths() -> None:
    model = Model({
        "input": {"channels": 3},
        "layers": [{"id": "a", **CONV}, {"id": "b", **CONV}],
        "outputs": ["a", "b"],
    })  # fmt: skip
    data = [drawn(1, 3, 4, 4, seed=i) for i in range(3)]
    found = Gradients.of(
        model, (1, 3, 4, 4), loss={"a": "mse", "b": "mse"}, data=data, dtype=torch.float64
    )
    w = {row.name: found._values[row.name].clone().requires_grad_() for row in found.parameters}
    a = F.conv2d(data[0], w["a.weight"], w["a.bias"], padding=1)
    b = F.conv2d(a, w["b.weight"], w["b.bias"], padding=1)
    (F.mse_loss(a, data[1]) + F.mse_loss(b, data[2])).backward()
    for name, weight in w.items():
        torch.testing.assert_close(found.gradient(name), weight.grad, rtol=1e-10, atol=1e-12)
    ways = {path.nodes for path in found.paths("a.weight").paths}
    assert ways == {("a", "@loss.a", "@loss"), ("a", "b", "@loss.b", "@loss")}


def test_a_program_in_training_is_looked_at_without_a_change() -> None:
    model = Model(SEED)
    program = model.compile((2, 3, 8, 8), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")
    x, target = torch.rand(2, 2, 3, 8, 8)
    before = {name: weight.clone() for name, weight in program.weights.items()}
    found = Gradients(program.plan, program.arguments(x, target))
    seen = Gradients(program.plan, program.arguments(x, target)).paths("conv2d_1.weight")
    assert seen == found.paths("conv2d_1.weight")
    assert all(torch.equal(before[name], w) for name, w in program.weights.items())
    assert found.loss == float(program.step(x, target))
    change = before["conv2d_1.weight"] - program.weights["conv2d_1.weight"]
    torch.testing.assert_close(
        change, 0.1 * found.gradient("conv2d_1.weight"), rtol=1e-3, atol=1e-7
    )


def test_errors_of_gradients() -> None:
    found, _ = shared()
    with pytest.raises(GraphError, match=r"no value 'a.wait'. Did you mean 'a.weight'"):
        found.paths("a.wait")
    with pytest.raises(GraphError, match=r"'\$input' has no gradient: no parameter lies before it"):
        found.paths("$input")
    with pytest.raises(InputError, match=r"data: expected 2 tensors \(input, target\), got 1"):
        Gradients.of(Model(SHARED), (1, 3, 4, 4), data=[torch.rand(1, 3, 4, 4)])
    with pytest.raises(InputError, match=r"input: expected 1x3x4x4 float32, got \(1, 3, 4, 5\)"):
        Gradients.of(Model(SHARED), (1, 3, 4, 4), data=[torch.rand(1, 3, 4, 5)] * 2)


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    path = tmp_path / "model.yaml"
    path.write_text(json.dumps(SHARED))  # JSON is YAML
    return str(path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(gradients, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_gradients_prints_tables_and_json(model_file: str, tmp_path: Path) -> None:
    base = (model_file, "--input", "1x3x8x8")
    table = run(*base).splitlines()
    assert table[0].split() == ["parameter", "shape", "norm", "gradient", "ratio", "contributions"]
    assert table[2].split()[:2] == ["a.weight", "3x3x3x3"]
    assert table[2].split()[-1] == "2"
    shown = run(*base, "--node", "a.weight")
    assert "a <- relu_1 <- b <- skip <- @loss" in shown
    assert "<- all paths to" not in shown
    assert shown == run(*base, "--node", "a.weight")
    assert shown != run(*base, "--node", "a.weight", "--seed", "1")
    data = json.loads(run(*base, "--node", "a", "--json", "--paths", "1"))
    assert [row["value"] for row in data["paths"]] == ["a.weight", "a.bias", "a.y"]
    assert data["paths"][0]["paths"][0]["merged"] == "a.weight"
    assert data["parameters"][0]["contributions"] == 2

    x, target = np.random.default_rng(0).random((2, 5, 3, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "pairs.npz", noisy=x, clean=target)
    found = json.loads(run(*base, "--data", str(tmp_path / "pairs.npz"), "--json"))
    expected = Gradients.of(
        Model(SHARED), (1, 3, 8, 8), data=[torch.from_numpy(t[:1]) for t in (x, target)]
    )
    assert found == expected.to_data()


def test_command_gradients_says_what_is_wrong_with_its_options(
    model_file: str, tmp_path: Path
) -> None:
    base = (model_file, "--input", "1x3x8x8")
    with pytest.raises(InputError, match="--paths: give this together with --node"):
        run(*base, "--paths", "2")
    (tmp_path / "bad.npz").write_text("no arrays")
    np.savez_compressed(tmp_path / "whole.npz", np.arange(999))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[:600])
    (tmp_path / "other.npz").write_bytes(whole[:200] + bytes(300) + whole[500:])
    for name in ("bad.npz", "half.npz", "other.npz"):
        with pytest.raises(DataError, match=f"{name}: not an .npz file of plain arrays"):
            run(*base, "--data", str(tmp_path / name))


def test_a_parameter_behind_another_output_has_a_norm_and_no_gradient() -> None:
    one = {"conv2d": {"out_channels": 3, "kernel_size": 1}, "inputs": ["$input"]}
    layers = [{"id": "a", **one}, {"id": "b", **one}]
    model = Model({"input": {"channels": 3}, "layers": layers, "outputs": ["a", "b"]})
    found = Gradients.of(model, (1, 3, 4, 4), loss={"a": "mse", "b": None})
    rows = {row.name: row for row in found.parameters}
    assert rows["a.weight"].gradient_norm > 0
    assert rows["b.weight"].value_norm > 0
    assert (rows["b.weight"].gradient_norm, rows["b.weight"].contributions) == (0.0, 0)


# -- values that are not finite ----------------------------------------------------------------------


def traced(layers: list[Any], x: Tensor, registry: Registry, **weights: float) -> NonFinite | None:
    model = Model({"layers": layers}, registry=registry)
    plan = model.plan(
        tuple(x.shape), loss="mse", optimizer=registry.make("optimizers", {"sgd": {"lr": 1.0}})
    )
    tensors = complete(
        plan, {"$input": x, "@target": torch.zeros_like(x), "@lr": torch.tensor(1.0)}
    )
    for name, fill in weights.items():
        tensors[name.replace("__", ".")].fill_(fill)
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    found = first_nonfinite(plan, tensors, registry=registry)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, copies[name], rtol=0, atol=0, equal_nan=True)
    return found


SCALE = {"id": "scale", "acme/scale": {}}


def test_an_overflow_in_forward_names_node_plugin_and_inputs(registry: Registry) -> None:
    layers = [SCALE, {"id": "e", "wrong/exp": {}}, "relu"]
    x = torch.tensor([[[[1.0, 400.0]]]])
    found = traced(layers, x, registry)
    assert found is not None
    assert found.call is not None
    assert (found.value, found.call.node, found.kind) == ("e.y", "e", Kind.LAYER)
    assert found.statistics == Statistics(*[float(torch.tensor(0.5).exp())] * 3, 0.5)
    assert found.inputs == {"scale.y": Statistics(0.5, 200.0, 100.25, 0.0)}
    assert str(found) == (
        "in the forward pass, node 'e' (wrong/exp, from Wrong local) made the first value that is not "
        "finite, 'e.y' (50 % of its elements), from scale.y (min 0.5, max 200, mean 100)"
    )


def test_a_bad_gradient_is_found_in_the_reverse_pass(registry: Registry) -> None:
    """sqrt(0) is fine, its gradient is not; the layers before it pass nan on but made none."""
    layers = [SCALE, {"id": "twice", "acme/scale": {}}, {"id": "root", "wrong/root": {}}]
    found = traced(layers, torch.tensor([[[[0.0, 1.0]]]]), registry)
    assert found is not None
    assert found.call is not None
    assert (found.call.name, found.value) == ("root:backward", "root.grad_x")
    assert "in the reverse pass, node 'root' (wrong/root, from Wrong local)" in str(found)
    assert traced(layers, torch.tensor([[[[0.5, 1.0]]]]), registry) is None


def test_an_overflow_in_the_loss_and_in_an_update(registry: Registry) -> None:
    big = torch.full((1, 1, 2, 2), 1e30)
    found = traced([SCALE], big, registry)
    assert found is not None
    assert "in the loss, node '@loss' (mse" in str(found)
    # loss (0.5 * 6e18)^2 = 9e36 and gradient 3.6e37 * 10 are finite, 0.5 - lr * gradient is not.
    model = Model({"layers": [SCALE]}, registry=registry)
    plan = model.plan(
        (1, 1, 1, 1), loss="mse", optimizer=registry.make("optimizers", {"sgd": {"lr": 1.0}})
    )
    tensors = complete(
        plan,
        {
            "$input": torch.full((1, 1, 1, 1), 6e18),
            "@target": torch.zeros(1, 1, 1, 1),
            "@lr": torch.tensor(100.0),
        },
    )
    found = first_nonfinite(plan, tensors, registry=registry)
    assert found is not None
    assert found.kind is Kind.UPDATE
    assert found.value == "scale.factor"
    assert "in the update, node 'scale' (sgd, from graphnet-framework" in str(found)
    assert found.inputs is not None
    assert found.inputs["scale.factor"] == Statistics(0.5, 0.5, 0.5, 0.0)


def test_nonfinite_arguments_are_reported_before_calls(registry: Registry) -> None:
    x = torch.zeros(3, 1, 1, 2)
    x[1, 0, 0, 1] = torch.inf
    found = traced([SCALE], x, registry)
    assert str(found) == (
        "the input 'input' of sample 1 (counted from 0) is not finite (16.7 % of its elements) "
        "when the step begins"
    )
    found = traced([SCALE], torch.zeros(1, 1, 1, 1), registry, scale__factor=torch.nan)
    assert str(found) == (
        "the parameter 'scale.factor' is not finite (100 % of its elements) when the step begins"
    )


def test_infinity_that_disappears_is_not_reported(registry: Registry) -> None:
    assert traced([SCALE, "wrong/masked"], torch.ones(1, 1, 2, 3), registry) is None


def test_walk_gives_the_values_of_each_step_and_leaves_the_weights(registry: Registry) -> None:
    model = Model({"layers": ["acme/center"]}, registry=registry)
    x = torch.ones(1, 1, 2, 2)
    plan = model.plan(x.shape, loss="mse")
    tensors = complete(plan, {"$input": x, "@target": x})
    seen = {step.call.name: dict(values) for step, values in walk(plan, tensors)}
    assert float(seen["center_1.mean:update"]["center_1.mean"]) == 0.5
    assert float(tensors["center_1.mean"]) == 0.0
    assert float(seen["@loss"]["@loss.loss"]) == 0.0
    with pytest.raises(InputError, match="target: must be given, as 1x1x2x2 float32"):
        complete(plan, {"$input": x})


# -- in training -------------------------------------------------------------------------------------


def failure(trainer: Trainer) -> str:
    with pytest.raises(TrainingError) as caught:
        list(trainer.run())
    return str(caught.value)


def test_the_trainer_names_the_step_inside_the_group_and_the_node(registry: Registry) -> None:
    """A learning rate that overflows in the first update: the second step's forward shows it."""
    message = failure(Trainer(job(registry, optimizer={"sgd": {"lr": 1e30}}, log_every=5)))
    assert message.startswith(
        "the loss is nan within steps 1 to 5 (learning rate 1e+30). In step 2, "
    )
    assert re.search(
        r"in the forward pass, node 'relu_2' \(conv2d_relu \[patch\], from graphnet-framework",
        message,
    )
    assert "relu_1.y (min 0, max" in message


def test_the_trainer_names_the_pairs_that_are_not_finite(registry: Registry) -> None:
    trainer = Trainer(job(registry, metrics=[]))
    assert isinstance(trainer.feed, MemoryBatches)
    inputs = trainer.feed.tensors[0].tensor.float().div(255)
    inputs[31, 0, 0, 0] = torch.nan
    trainer.feed.tensors[0].tensor = inputs
    step = int((trainer.feed.order(0) == 31).nonzero()) // 8 + 1
    message = failure(trainer)
    assert f"In step {step}, the input 'input' of sample 31 (counted from 0) is not fin" in message
    # The weights are those before that step: finite.
    assert all(bool(w.isfinite().all()) for w in trainer.program.weights.values())
    assert trainer.program.steps_done == step - 1


def test_the_trainer_names_a_weight_that_was_bad_before(registry: Registry) -> None:
    trainer = Trainer(job(registry))
    trainer.program.weights["conv2d_2.bias"][3] = torch.inf
    assert "In step 1, the parameter 'conv2d_2.bias' is not finite (6.25 %" in failure(trainer)


def test_the_trainer_finds_a_bad_gradient_before_the_loss_shows_it(registry: Registry) -> None:
    layers = [SCALE, {"id": "root", "wrong/root": {}}]  # some of the pixels are 0
    message = failure(Trainer(job(registry, model={"input": {"channels": 3}, "layers": layers})))
    assert "In step 1, in the reverse pass, node 'root' (wrong/root, from Wrong local)" in message


def test_remembering_weights_does_not_change_training(registry: Registry) -> None:
    weights = []
    for log_every in (1, 3, 100):
        trainer = Trainer(job(registry, log_every=log_every, optimizer={"adam": {"lr": 0.01}}))
        list(trainer.run())
        weights.append({name: w.clone() for name, w in trainer.program.weights.items()})
    assert all(torch.equal(weights[0][name], other[name]) for other in weights for name in other)


# -- the page ----------------------------------------------------------------------------------------


def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "gradients.md").read_text()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S))
    exec(code, {})
    printed = capsys.readouterr().out
    (paths_shown, *_) = re.findall(r"^```text\n(gradient of.*?)^```", page, flags=re.M | re.S)
    for line in paths_shown.splitlines()[3:]:
        norm, share, nodes = re.split(r"\s{2,}", line)
        seen = re.search(rf"^(\S+) +(\S+ %) +{re.escape(nodes)}$", printed, flags=re.M)
        assert seen is not None
        assert float(seen[1]) == pytest.approx(float(norm), rel=0.01)
        assert seen[2] == share
    assert "the input 'input' of sample 1 (counted from 0) is not finite (0.26 % of" in printed

"""Plans that predict: norms folded into convolutions, and what depends on weights alone computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from graphnet.errors import ContractError, LayerError, PlanError
from graphnet.executors import prepare
from graphnet.graph import Graph, Kind
from graphnet.inspection import explain
from graphnet.inspection.walk import complete
from graphnet.model import Model, Program
from graphnet.model.slots import packed
from graphnet.passes import hoist_constants
from graphnet.plan import Plan, schedule, verify
from graphnet.sdk import (
    Constant,
    Layer,
    ParameterSpec,
    Precision,
    Register,
    Registry,
    Specs,
    hookimpl,
    load_registry,
)
from graphnet.sdk.random import uniform
from tests.support.models import Acme

SHAPE = (2, 4, 6, 6)
CONVOLUTION = {"conv2d": {"out_channels": 6, "kernel_size": 3, "padding": 1}}
NORM = {"batch_norm2d": {}}


class Gain(Layer):
    """Each channel times its gain."""

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"gain": ParameterSpec((specs["x"].shape[1],), Constant(1.5))}

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return x * gain.view(-1, 1, 1)

    def backward(self, grad_y: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        return grad_y * gain.view(-1, 1, 1), (grad_y * x).sum((0, 2, 3))

    def affine_map(self, gain: Tensor) -> tuple[Tensor, Tensor]:
        return gain.clone(), torch.zeros_like(gain)


class Offset(Layer):
    """Each channel plus its offset, times its gain."""

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        shape = (specs["x"].shape[1],)
        return {
            "gain": ParameterSpec(shape, Constant(0.5)),
            "offset": ParameterSpec(shape, Constant(2.0)),
        }

    def forward(self, x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        return x * gain.view(-1, 1, 1) + offset.view(-1, 1, 1)

    def absorb(
        self, gain: Tensor, offset: Tensor, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        return gain * scale, offset * scale + shift


class Following(Offset):
    """An Offset in whatever dtype its input has."""

    precision: ClassVar[Precision] = "follow"


class Widening(Offset):
    """Absorbs into a parameter of another shape, which is wrong."""

    def absorb(
        self, gain: Tensor, offset: Tensor, scale: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        return (gain * scale).repeat(2), offset


class Counted(Gain):
    """Each channel times its gain; counts how often it absorbs."""

    calls: ClassVar[list[int]] = []

    def absorb(self, gain: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Right where the shift is 0."""
        if not gain.is_meta:
            self.calls.append(1)
        return gain * scale


class Noise(Layer):
    """x plus uniform noise."""

    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        return x + uniform(key, x.shape)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y


class Plugin:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        for layer in (Gain, Offset, Following, Widening, Counted, Noise):
            register(f"test/{layer.__name__.lower()}", layer)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme(), Plugin()], entry_points=False)


@pytest.fixture
def counted() -> Iterator[list[int]]:
    Counted.calls.clear()
    yield Counted.calls
    Counted.calls.clear()


def model_of(registry: Registry, *layers: Any, dtype: torch.dtype = torch.float32) -> Model:
    """A model with weights and states that are all different, as after some training."""
    model = Model({"input": {"channels": 4}, "layers": list(layers)}, registry=registry)
    plan = model.plan(SHAPE, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name in plan.slots:
        drawn = torch.rand(plan.values[name].spec.shape, generator=generator, dtype=torch.float64)
        positive = name.endswith("running_var")
        weights[name] = (drawn + 0.2 if positive else drawn - 0.5).to(dtype)
    return Model(model.description, registry=registry, weights=weights)


def nodes(plan: Plan) -> list[str]:
    return [step.call.name for step in plan.steps]


def predicted(model: Model, plan: Plan, x: Tensor) -> tuple[Tensor, ...]:
    assert model.weights is not None
    x = packed(x, plan.values["$input"])
    tensors = complete(plan, {"$input": x, **model.weights})
    return prepare(plan, "eager")(*tensors.values())


def folded_and_not(
    registry: Registry, *layers: Any, dtype: torch.dtype, **options: Any
) -> tuple[Tensor, Tensor]:
    model = model_of(registry, *layers, dtype=dtype)
    x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plans = [model.plan(SHAPE, dtype=dtype, without=w, **options) for w in ((), ("fold_affine",))]
    assert not any("norm" in name or "gain" in name for name in nodes(plans[0]))
    assert any("norm" in name or "gain" in name for name in nodes(plans[1]))
    (one,), (other,) = (predicted(model, plan, x.to(dtype)) for plan in plans)
    return one, other


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# Norms go into convolutions.

PAIRS = {
    "conv2d": [CONVOLUTION],
    "no bias": [{"conv2d": {"out_channels": 6, "kernel_size": 3, "bias": False}}],
    "groups": [{"conv2d": {"out_channels": 6, "kernel_size": 2, "groups": 2, "stride": 2}}],
    "patches": [{"conv2d": {"out_channels": 6, "kernel_size": 2, "stride": 2}}],
    "transposed": [{"transpose_conv2d": {"out_channels": 6, "kernel_size": 3, "stride": 2}}],
    "transposed groups": [
        {
            "transpose_conv2d": {
                "out_channels": 6,
                "kernel_size": 2,
                "stride": 2,
                "groups": 2,
                "bias": False,
            }
        }
    ],
    "upsampling": [{"upsampling": {"out_channels": 6, "kernel_size": 2, "stride": 2}}],
}


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("after", [[], ["relu"]], ids=["last", "relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pair", PAIRS)
def test_folded_outputs_equal_unfolded_ones(
    registry: Registry, pair: str, dtype: torch.dtype, after: list[str], kernels: str
) -> None:
    layers = [*PAIRS[pair], NORM, *after]
    found, expected = folded_and_not(registry, *layers, dtype=dtype, kernels=kernels)
    assert error(found, expected) <= (1e-12 if dtype is torch.float64 else 1e-6)


def test_folding_equals_torchs_own(registry: Registry) -> None:
    model = model_of(registry, CONVOLUTION, NORM, dtype=torch.float64)
    weights = dict(model.weights or {})
    convolution, norm = torch.nn.Conv2d(4, 6, 3, padding=1).double(), torch.nn.BatchNorm2d(6)
    norm = norm.double().eval()
    for module, node in ((convolution, "conv2d_1"), (norm, "batch_norm2d_1")):
        own = module.state_dict()
        module.load_state_dict({n: weights.get(f"{node}.{n}", own[n]) for n in own})
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(convolution.eval(), norm)
    plan = model.plan(SHAPE, dtype=torch.float64)
    assert plan.prelude is not None
    made = prepare(plan.prelude, "eager")(*(weights[name] for name in plan.prelude.arguments))
    torch.testing.assert_close(made[0], fused.weight.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(made[1], fused.bias.detach(), rtol=1e-13, atol=1e-14)
    assert nodes(plan) == ["conv2d_1"]


def test_norm_by_hand_becomes_weight_and_bias(registry: Registry) -> None:
    pixel = {"conv2d": {"out_channels": 1, "kernel_size": 1}}
    description = {"input": {"channels": 1}, "layers": [pixel, {"batch_norm2d": {"eps": 1.0}}]}
    given = {
        "conv2d_1.weight": torch.full((1, 1, 1, 1), 3.0),
        "conv2d_1.bias": torch.tensor([5.0]),
        "batch_norm2d_1.weight": torch.tensor([4.0]),
        "batch_norm2d_1.bias": torch.tensor([7.0]),
        "batch_norm2d_1.running_mean": torch.tensor([1.0]),
        "batch_norm2d_1.running_var": torch.tensor([3.0]),
    }
    plan = Model(description, registry=registry).plan((1, 1, 2, 2))
    assert plan.prelude is not None
    made = prepare(plan.prelude, "reference")(*(given[name] for name in plan.prelude.arguments))
    # scale 4 / sqrt(3 + 1) = 2:  weight 3 * 2, bias 7 + (5 - 1) * 2
    assert [tensor.item() for tensor in made] == [6.0, 15.0]


def test_norms_behind_each_other_go_into_one_convolution(registry: Registry) -> None:
    layers = [CONVOLUTION, NORM, NORM, {"test/gain": {}}, "relu", CONVOLUTION]
    found, expected = folded_and_not(registry, *layers, dtype=torch.float64)
    assert error(found, expected) <= 1e-12
    plan = model_of(registry, *layers).plan(SHAPE, without=("fusion", "block_layout"))
    assert nodes(plan) == ["conv2d_1", "relu_1", "conv2d_2"]


def test_layers_of_any_plugin_take_part(registry: Registry) -> None:
    found, expected = folded_and_not(
        registry, {"test/offset": {}}, {"test/gain": {}}, dtype=torch.float64
    )
    assert error(found, expected) <= 1e-14
    assert nodes(model_of(registry, {"test/offset": {}}, NORM).plan(SHAPE)) == ["offset_1"]


def test_shared_weights_stay_as_they_are_for_the_other_convolution(registry: Registry) -> None:
    layers = [
        {"id": "a", **CONVOLUTION},
        {"id": "n", **NORM},
        {"id": "b", **CONVOLUTION, "share": "a", "inputs": ["$input"]},
        {"add": {}, "inputs": ["n", "b"]},
    ]
    model = model_of(registry, *layers, dtype=torch.float64)
    x = torch.rand(SHAPE, dtype=torch.float64)
    plans = [model.plan(SHAPE, dtype=torch.float64, without=w) for w in ((), ("fold_affine",))]
    assert nodes(plans[0]) == ["a", "b", "add_1"]
    (one,), (other,) = (predicted(model, plan, x) for plan in plans)
    assert error(one, other) <= 1e-12


@pytest.mark.parametrize(
    "layers",
    [
        [{"id": "c", **CONVOLUTION}, {"id": "n", **NORM}, {"add": {}, "inputs": ["n", "c"]}],
        [{"id": "c", **CONVOLUTION}, "relu", {"id": "n", **NORM}],
        [{"id": "n", **NORM}, {"id": "c", **CONVOLUTION}],
    ],
    ids=["read twice", "relu between", "before"],
)
def test_norm_that_cannot_be_folded_stays(registry: Registry, layers: list[Any]) -> None:
    assert "n" in nodes(model_of(registry, *layers).plan(SHAPE))


def test_norm_stays_behind_a_convolution_that_is_an_output(registry: Registry) -> None:
    layers = [{"id": "c", **CONVOLUTION}, {"id": "n", **NORM}]
    description = {"input": {"channels": 4}, "layers": layers, "outputs": ["c", "n"]}
    assert nodes(Model(description, registry=registry).plan(SHAPE)) == ["c", "n"]


def test_training_folds_nothing(registry: Registry) -> None:
    model = model_of(registry, CONVOLUTION, NORM)
    plan = model.plan(SHAPE, loss="mse", without=("fold_affine", "hoist_constants"))
    assert {"conv2d_1", "batch_norm2d_1"} <= set(nodes(plan))
    assert plan.prelude is None


def test_folding_in_bfloat16_casts_what_was_folded_in_float32(registry: Registry) -> None:
    model = model_of(registry, CONVOLUTION, NORM, "relu")
    plan = model.plan(SHAPE, precision="bfloat16")
    assert plan.prelude is not None
    dtypes = {
        s.call.method: plan.prelude.values[next(s.call.makes())].spec.dtype
        for s in plan.prelude.steps
    }
    assert dtypes["absorb"] is torch.float32
    assert dtypes["forward"] is torch.bfloat16  # the casts
    x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3))
    low, full = (model.predict(x, precision=p) for p in ("bfloat16", None))
    assert error(low, full) <= 0.02


def test_folded_parameters_leave_later_values_in_bfloat16(registry: Registry) -> None:
    layers = [CONVOLUTION, {"id": "f", "test/following": {}}, {"test/gain": {}}]
    plan = model_of(registry, *layers).plan(SHAPE, precision="bfloat16")
    assert plan.values["f.y"].spec.dtype is torch.bfloat16


def test_folded_weight_keeps_the_strides_that_kernels_want(registry: Registry) -> None:
    plan = model_of(registry, CONVOLUTION, NORM).plan(SHAPE)
    assert plan.values["conv2d_1.weight"].memory_format is torch.channels_last


def test_absorb_that_changes_a_shape_is_named(registry: Registry) -> None:
    words = r"node 'widening_1' .*absorb must return 'gain' as 4 float32, returned 8 float32"
    with pytest.raises(LayerError, match=words):
        model_of(registry, {"test/widening": {}}, {"test/gain": {}})


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("affine_map", "affine_map names 'x', which is no parameter or state that forward takes"),
        ("absorb", "absorb must take parameters, then scale and shift; found"),
    ],
)
def test_absorb_with_other_arguments_is_refused(method: str, message: str) -> None:
    def asks(self: Layer, x: Tensor) -> Tensor:
        return x

    with pytest.raises(ContractError, match=message):
        type("Wrong", (Offset,), {method: asks})


# What depends on weights alone is computed once.


def test_casts_of_weights_move_ahead_and_the_input_stays(registry: Registry) -> None:
    plan = model_of(registry, CONVOLUTION).plan(SHAPE, precision="bfloat16")
    assert plan.prelude is not None
    assert nodes(plan.prelude) == ["conv2d_1.weight:bfloat16", "conv2d_1.bias:bfloat16"]
    assert nodes(plan) == ["$input:bfloat16", "conv2d_1", "conv2d_1.y:float32"]
    assert plan.of(Kind.PRELUDE) == plan.prelude.outputs


def test_same_bits_with_and_without(registry: Registry) -> None:
    model = model_of(registry, CONVOLUTION, NORM, "relu")
    x = torch.rand(SHAPE)
    for precision in (None, "bfloat16"):
        plans = [
            model.plan(SHAPE, precision=precision, without=w) for w in ((), ("hoist_constants",))
        ]
        assert plans[1].prelude is None
        (one,), (other,) = (predicted(model, plan, x) for plan in plans)
        assert torch.equal(one, other)


def test_plan_without_constant_calls_has_no_prelude(registry: Registry) -> None:
    assert model_of(registry, CONVOLUTION).plan(SHAPE).prelude is None


def test_model_computes_ahead_once_for_all_shapes(registry: Registry, counted: list[int]) -> None:
    model = model_of(registry, {"test/counted": {}}, {"test/gain": {}})
    x = torch.rand(SHAPE)
    first = model.predict(x)
    assert torch.equal(model.predict(x), first)
    model.predict(torch.rand(1, 4, 3, 3))
    assert len(counted) == 1


def program_of(registry: Registry) -> Program:
    model = model_of(registry, {"test/counted": {}}, {"test/gain": {}})
    return model.compile(SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu")


def expected(program: Program, x: Tensor) -> Tensor:
    weights = program.weights.own  # nobody else has them, and could write them
    gains = weights["counted_1.gain"] * weights["gain_1.gain"]
    return x * gains.view(-1, 1, 1)


def test_program_recomputes_hoisted_values_after_each_step_and_only_then(
    registry: Registry, counted: list[int]
) -> None:
    program = program_of(registry)
    x, target = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(4))
    for number in (1, 2, 3):
        for _ in range(3):
            torch.testing.assert_close(program.predict(x), expected(program, x))
        assert len(counted) == number
        program.step(x, target)


def test_weights_written_by_hand_are_never_stale(registry: Registry, counted: list[int]) -> None:
    program = program_of(registry)
    x = torch.rand(SHAPE)
    program.predict(x)
    program.weights["gain_1.gain"].mul_(2)
    torch.testing.assert_close(program.predict(x), expected(program, x))
    with torch.inference_mode():
        program.weights["counted_1.gain"].add_(1)
    torch.testing.assert_close(program.predict(x), expected(program, x))
    assert len(counted) == 3


def test_writes_of_torch_into_an_owned_weight_are_noticed_by_its_version(
    registry: Registry, counted: list[int]
) -> None:
    program = program_of(registry)
    x = torch.rand(SHAPE)
    program.predict(x)
    program.weights.own["gain_1.gain"].mul_(2)  # nothing is lent: the age stays
    torch.testing.assert_close(program.predict(x), expected(program, x))
    assert len(counted) == 2


def test_weights_made_in_inference_mode_can_be_watched(registry: Registry) -> None:
    with torch.inference_mode():
        program = program_of(registry)
        x = torch.rand(SHAPE)
        program.predict(x)
        program.weights["gain_1.gain"].mul_(2)
        torch.testing.assert_close(program.predict(x), expected(program, x))


def test_writes_that_no_version_shows_count_as_steps(registry: Registry) -> None:
    """A compiled step may write without torch noticing."""
    program = program_of(registry)
    x = torch.rand(SHAPE)
    program.predict(x)
    program.weights.own["gain_1.gain"].data.mul_(2)  # .data hides it
    program._trained.steps_done += 1
    torch.testing.assert_close(program.predict(x), expected(program, x))


def test_output_that_depends_on_weights_alone_is_computed_each_time(registry: Registry) -> None:
    plan = model_of(registry, CONVOLUTION).plan(SHAPE, precision="bfloat16")
    assert plan.prelude is not None
    name = plan.prelude.outputs[0]
    graph = whole(plan)
    kept = hoist_constants(replace(graph, outputs=(*graph.outputs, name)))
    assert name not in [value.name for value in kept.values.values() if value.kind is Kind.PRELUDE]
    verify(kept, schedule(kept))


def test_random_layer_without_inference_predicts_the_same_each_time(registry: Registry) -> None:
    model = model_of(registry, CONVOLUTION, {"test/noise": {}}, NORM)
    x = torch.rand(SHAPE)
    first = model.predict(x)
    assert torch.equal(model.predict(x), first)
    assert "noise_1:key" in nodes(model.plan(SHAPE))  # the seed is no weight


def test_explain_shows_what_is_computed_ahead(registry: Registry) -> None:
    text = explain(model_of(registry, CONVOLUTION, NORM).plan(SHAPE))
    each_time, _, ahead = text.partition("computed ahead")
    assert "batch_norm2d fold" in ahead
    assert "conv2d fold" in ahead
    assert "fold" not in each_time


# The verifier knows both parts.


def whole(plan: Plan) -> Graph:
    """The graph of a plan before its calls were moved ahead."""
    ahead = plan.prelude
    assert ahead is not None
    values = {**plan.values, **ahead.values}
    steps = (*ahead.steps, *plan.steps)
    return Graph(
        calls={step.call.name: step.call for step in steps},
        values=values,
        inputs=plan.inputs,
        outputs=plan.outputs,
    )


def planned(registry: Registry) -> tuple[Graph, Plan]:
    plan = model_of(registry, CONVOLUTION, NORM).plan(
        SHAPE, without=("hoist_constants", "in_place")
    )
    calls = {step.call.name: step.call for step in plan.steps}
    graph = hoist_constants(Graph(calls, plan.values, plan.inputs, plan.outputs))
    return graph, schedule(graph)


def test_verifier_checks_the_prelude_as_well(registry: Registry) -> None:
    graph, plan = planned(registry)
    verify(graph, plan)
    ahead = plan.prelude
    assert ahead is not None
    early = replace(ahead, steps=ahead.steps[::-1])
    with pytest.raises(PlanError, match="freed or not made yet"):
        verify(graph, replace(plan, prelude=early))


def test_plan_without_its_prelude_is_rejected(registry: Registry) -> None:
    graph, plan = planned(registry)
    with pytest.raises(PlanError, match="the prelude makes nothing, but the plan takes"):
        verify(graph, replace(plan, prelude=None))


def test_prelude_that_makes_its_results_in_another_order_is_rejected(registry: Registry) -> None:
    graph, plan = planned(registry)
    ahead = graph.prelude
    assert ahead is not None
    turned = replace(graph, prelude=replace(ahead, outputs=ahead.outputs[::-1]))
    with pytest.raises(PlanError, match="the prelude makes"):
        verify(turned, schedule(turned))
    del plan

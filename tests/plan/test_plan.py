"""Plans: what they compute, what they free, and that the verifier accepts them and no others."""

from __future__ import annotations

import random
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.builtin import MSE, SGD
from graphnet.description import LossTerm, ModelDescription, UpdateSettings, expand, parse
from graphnet.errors import LayerError, PlanError
from graphnet.executors import prepare
from graphnet.graph import Const, Graph, Kind, build
from graphnet.model import Model, set_up
from graphnet.passes import (
    Everywhere,
    attach_loss,
    choose,
    differentiate,
    in_place,
    substitute,
    update,
)
from graphnet.plan import Plan, Step, schedule, verify
from graphnet.sdk import (
    Layer,
    Loss,
    Register,
    Registry,
    Spec,
    Specs,
    StateSpec,
    hookimpl,
    load_registry,
)
from tests.support.models import SEED, Acme, Scale, random_dag

SHAPE = (2, 4, 6, 6)


class Shown(Layer):
    """x, and beside it a view of a count that each step raises by 1."""

    outputs: ClassVar[tuple[str, ...]] = ("y", "shown")
    updates: ClassVar[tuple[str, ...]] = ("count",)

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        return {"count": StateSpec((specs["x"].shape[1],))}

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x, count.view(1, -1, 1, 1), count + 1

    def backward(self, grad_y: Tensor, grad_shown: Tensor | None = None) -> Tensor:
        return grad_y


class First(Layer):
    """On meta tensors x, else its first row alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.is_meta else x[:1] * 2


class Saving(Layer):
    """x times 2, and a copy that a reverse pass would read."""

    saves: ClassVar[tuple[str, ...]] = ("copy",)
    copies: ClassVar[list[weakref.ref[Tensor]]] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        copy = x.clone()
        if not x.is_meta:
            self.copies.append(weakref.ref(copy))
        return x * 2, copy


class Looking(Layer):
    """x times 2; looks whether Saving's copy is still there."""

    found: ClassVar[list[Tensor | None]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:
            self.found.append(Saving.copies[-1]())
        return x * 2


class Odd:
    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("odd/shown", Shown)
        register("odd/first", First)
        register("odd/saving", Saving)
        register("odd/looking", Looking)
        register("odd/scale", Scale)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


def training(
    description: ModelDescription,
    registry: Registry,
    *,
    kernels: str = "auto",
    shape: tuple[int, ...] = SHAPE,
    loss: Loss | None = None,
) -> tuple[Graph, Plan]:
    spec = Spec(shape, torch.float64)
    graph = build(expand(description, registry), inputs=[spec], dtype=torch.float64)
    graph = attach_loss(graph, {"output": [LossTerm(loss or MSE(), "mse")]})
    graph = substitute(
        graph, kernels=choose(registry, kernels), registry=registry, plain=Everywhere()
    )
    graph = update(differentiate(graph), updates=UpdateSettings(optimizer=SGD(lr=0.1)))
    return graph, schedule(graph)


def tensors(plan: Plan, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = set_up([plan.values[n] for n in plan.of(Kind.CONSTANT) + plan.slots], seed=seed)
    for name in plan.inputs:
        made[name] = torch.rand(
            plan.values[name].spec.shape, generator=generator, dtype=torch.float64
        )
    made |= {"@lr": torch.tensor(0.1, dtype=torch.float64), "@step": torch.tensor(0)}
    return made


def run(plan: Plan, executor: str) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    values = tensors(plan)
    with torch.no_grad():
        outputs = prepare(plan, executor)(*(values[name] for name in plan.arguments))
    return outputs, values


@pytest.mark.parametrize("kernels", ["reference", "auto"])
@pytest.mark.parametrize("seed", range(30))
def test_reference_and_eager_agree_to_the_bit(registry: Registry, seed: int, kernels: str) -> None:
    graph, plan = training(random_dag(25, seed), registry, kernels=kernels)
    verify(graph, plan)
    expected, slots = run(plan, "reference")
    found, found_slots = run(plan, "eager")
    assert torch.equal(expected[0], found[0])
    for name in plan.slots:
        assert torch.equal(slots[name], found_slots[name]), name


@pytest.mark.parametrize("seed", range(12))
def test_updates_of_a_random_dag_match_central_differences(registry: Registry, seed: int) -> None:
    description = random_dag(9, seed)
    graph, plan = training(description, registry)
    _, after = run(plan, "eager")
    before = tensors(plan)
    forward = schedule(
        attach_loss(
            build(
                expand(description, registry),
                inputs=[Spec(SHAPE, torch.float64)],
                dtype=torch.float64,
            ),
            {"output": [LossTerm(MSE(), "mse")]},
        )
    )

    def loss_at(name: str, index: int, shift: float) -> float:
        values = tensors(plan)
        values[name] = values[name].contiguous()
        values[name].view(-1)[index] += shift
        return float(prepare(forward, "reference")(*(values[n] for n in forward.arguments))[0])

    draw = random.Random(seed)
    for name in graph.parameters:
        index = draw.randrange(before[name].numel())
        slope = (loss_at(name, index, 1e-6) - loss_at(name, index, -1e-6)) / 2e-6
        step = (before[name] - after[name]).flatten()[index] / 0.1
        assert step.item() == pytest.approx(slope, rel=2e-4, abs=1e-8), name


def test_tensor_used_twice_accumulates_gradient(registry: Registry) -> None:
    model = parse({"input": {"channels": 4}, "layers": [
        {"id": "s", "acme/scale": {}}, {"add": {}, "inputs": ["s", "s"]}]})  # fmt: skip
    graph, plan = training(model, registry)
    assert [call.kind for call in graph.calls.values()].count(Kind.ACCUMULATE) == 1
    edges = graph.network.get_edge_data("s", "add_1")
    assert sorted(edges) == [0, 1]
    _, after = run(plan, "eager")
    values = tensors(plan)
    x, target = values["$input"], values["@target"]
    slope = (2 * (2 * 0.5 * x - target) / x.numel() * 2 * x).sum()
    torch.testing.assert_close(after["s.factor"], 0.5 - 0.1 * slope.reshape(1))


def test_shared_parameters_are_one_node_and_get_both_gradients(registry: Registry) -> None:
    model = parse({"input": {"channels": 4}, "layers": [
        {"id": "a", "acme/scale": {}}, {"id": "b", "acme/scale": {}, "share": "a"}]})  # fmt: skip
    graph, plan = training(model, registry)
    assert graph.parameters == ("a.factor",)
    _, after = run(plan, "eager")
    values = tensors(plan)
    x, target = values["$input"], values["@target"]
    w = 0.5  # y = w w x, so dy/dw = 2 w x
    slope = (2 * (w * w * x - target) / x.numel() * 2 * w * x).sum()
    torch.testing.assert_close(after["a.factor"], w - 0.1 * slope.reshape(1))


def test_equal_descriptions_give_equal_plans(registry: Registry) -> None:
    first = training(random_dag(30, 5), registry)[1]
    second = training(random_dag(30, 5), registry)[1]
    assert first.steps == second.steps
    assert gn.source(first) == gn.source(second)


def test_first_layers_input_gradient_is_not_wanted(registry: Registry) -> None:
    graph, _ = training(parse(SEED), registry, shape=(2, 3, 8, 8))
    wanted = {
        name: arg.value
        for name, call in graph.calls.items()
        for arg in call.args
        if call.kind is Kind.BACKWARD
        and isinstance(arg, Const)
        and isinstance(arg.value, frozenset)
    }
    assert wanted["conv2d_1:backward"] == {"weight", "bias"}
    assert wanted["conv2d_2:backward"] == {"x", "weight", "bias"}


def test_unused_output_gets_zeros_and_its_gradient_flows(registry: Registry) -> None:
    layers = [
        {"id": "s", "acme/scale": {}},
        {"id": "h", "acme/halves": {}},
        {"relu": {}, "inputs": ["h.second"]},
    ]
    model = parse({"input": {"channels": 4}, "layers": layers})
    graph, plan = training(model, registry)
    verify(graph, plan)
    assert "h.first:zeros" in plan.values
    _, after = run(plan, "eager")
    values = tensors(plan)
    x, target = values["$input"][:, 2:], values["@target"]
    slope = (2 * (0.5 * x - target) / target.numel() * x).sum()  # x >= 0, so relu passes it all
    torch.testing.assert_close(after["s.factor"], 0.5 - 0.1 * slope.reshape(1))


def test_state_is_updated_in_training_and_only_read_in_inference(registry: Registry) -> None:
    description = parse(
        {"input": {"channels": 2}, "layers": [{"id": "c", "acme/center": {}}, "acme/scale"]}
    )
    model = Model(description, registry=registry)
    program = model.compile((3, 2, 4, 4), loss="mse", optimizer=SGD(lr=0.0))
    x = torch.rand(3, 2, 4, 4)
    program.step(x, x)
    torch.testing.assert_close(program.weights["c.mean"], 0.5 * x.mean((0, 2, 3)))
    expected = 0.5 * (x - program.weights["c.mean"].view(1, -1, 1, 1))
    torch.testing.assert_close(program.predict(x), expected)
    torch.testing.assert_close(program.weights["c.mean"], 0.5 * x.mean((0, 2, 3)))


def test_state_that_is_shown_as_a_view_is_read_before_its_update() -> None:
    program = Model(
        {
            "input": {"channels": 2},
            "layers": [
                {"id": "s", "odd/shown": {}},
                {"subtract": {}, "inputs": ["s", "s.shown"]},
                "odd/scale",
            ],
        },
        registry=load_registry(plugins=[Odd()], entry_points=False),
    ).compile((3, 2, 4, 4), loss="mse", optimizer=SGD(lr=0.0), device="cpu")
    x = torch.rand(3, 2, 4, 4)
    mean = torch.zeros(1, 2, 1, 1)
    for _ in range(2):
        expected = ((0.5 * (x - mean)) ** 2).mean()
        torch.testing.assert_close(program.step(x, torch.zeros_like(x)), expected)
        mean = mean + 1


def test_reference_checks_the_shape_of_each_result() -> None:
    model = Model(
        {"layers": [{"id": "f", "odd/first": {}}]},
        registry=load_registry(plugins=[Odd()], entry_points=False),
    )
    x = torch.rand(2, 3)
    message = r"node 'f' \(odd/first\): forward must return 'f.y' as 2x3 .*, returned 1x3 float32"
    with pytest.raises(LayerError, match=message):
        model.predict(x, executor="reference")


def test_results_that_nobody_reads_are_freed_at_once() -> None:
    model = Model(
        {"layers": ["odd/saving", "odd/looking"]},
        registry=load_registry(plugins=[Odd()], entry_points=False),
    )
    model.predict(torch.rand(2, 3))
    assert Looking.found == [None]


def test_random_layer_replays_its_mask_in_backward_and_draws_anew_each_step(
    registry: Registry,
) -> None:
    description = parse({"input": {"channels": 2}, "layers": [
        {"id": "s", "acme/scale": {}}, {"id": "d", "acme/dropout": {}}]})  # fmt: skip
    graph, _ = training(description, registry, shape=(3, 2, 8, 8))
    keys = [call for call in graph.calls.values() if call.kind is Kind.KEY]
    assert len(keys) == 1
    model = Model(description, registry=registry)
    x = torch.rand(3, 2, 8, 8)
    target = torch.zeros_like(x)
    losses = []
    for _ in range(2):
        program = model.compile((3, 2, 8, 8), loss="mse", optimizer=SGD(lr=1.0), seed=3)
        before = program.weights["s.factor"].clone()
        loss = program.step(x, target)
        # loss = mean (f m x)^2, so its slope at f is 2 loss / f if backward has forward's mask
        slope = 2 * loss / before
        torch.testing.assert_close(program.weights["s.factor"], before - slope)
        losses.append((loss.item(), program.step(x, target).item()))
    assert losses[0] == losses[1]
    other = model.compile((3, 2, 8, 8), loss="mse", optimizer=SGD(lr=1.0), seed=4)
    assert other.step(x, target).item() != losses[0][0]


def test_memory_counts_what_is_alive(registry: Registry) -> None:
    model = Model({"layers": ["relu", "sigmoid", "relu"]}, registry=registry)
    size = 16 * 4  # the input, and two values at a time; in place one
    pure = model.plan((1, 1, 4, 4), without=["in_place"])
    assert list(pure.memory()) == [2 * size, 3 * size, 3 * size]
    assert list(model.plan((1, 1, 4, 4)).memory()) == [2 * size, 2 * size, 2 * size]


def counted_by_frees(plan: Plan) -> list[int]:
    """The bytes alive during each step, by what steps make and free; without what they need on the way."""
    users: Counter[str] = Counter()
    alive = sum(plan.values[name].spec.size_bytes for name in plan.arguments)
    found = []
    for step in plan.steps:
        for name in step.call.makes():
            users[plan.storage(name)] += 1
            if users[name] == 1 and plan.storage(name) == name:
                alive += plan.values[name].spec.size_bytes
        found.append(alive)
        for name in step.frees:
            root = plan.storage(name)
            users[root] -= 1
            if users[root] == 0 and root not in plan.arguments:
                alive -= plan.values[root].spec.size_bytes
    return found


@pytest.mark.parametrize("seed", range(10))
def test_lifetimes_equal_those_of_the_steps(registry: Registry, seed: int) -> None:
    graph, _ = training(random_dag(25, seed), registry)
    for plan in (schedule(graph), schedule(in_place(graph))):
        held = [one.work_bytes for one in plan.memory_use.items]
        found = [alive - work for alive, work in zip(plan.memory(), held, strict=True)]
        assert found == counted_by_frees(plan)


def test_source_runs_alone_and_equals_the_executor(registry: Registry) -> None:
    _, plan = training(random_dag(12, 1), registry)
    text = gn.source(plan)
    compile(text, "<test>", "exec")
    assert "\ndef step(x, target, lr, step, " in text
    assert "_ =" not in text.replace(", _ =", "") or "del" in text


# -- the verifier -----------------------------------------------------------------------------------

Fault = Callable[[Graph, Plan, random.Random], Plan | None]


def early_free(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    late = [i for i, step in enumerate(steps) if step.frees and i > 3]
    i = draw.choice(late)
    name = steps[i].frees[0]
    made = next(j for j, step in enumerate(steps) if name in step.call.makes())
    if made >= i:
        return None
    j = draw.randrange(made, i)
    steps[i] = replace(steps[i], frees=steps[i].frees[1:])
    steps[j] = replace(steps[j], frees=(*steps[j].frees, name))
    return replace(plan, steps=tuple(steps))


def never_freed(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps) if step.frees])
    steps[i] = replace(steps[i], frees=steps[i].frees[1:])
    return replace(plan, steps=tuple(steps))


def freed_twice(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps) if step.frees])
    steps[-1] = replace(steps[-1], frees=(*steps[-1].frees, steps[i].frees[0]))
    return replace(plan, steps=tuple(steps))


def update_before_reader(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    place = {step.call.name: i for i, step in enumerate(plan.steps)}
    for step in plan.steps:
        if step.call.kind is not Kind.UPDATE or not step.call.after:
            continue
        last = max(place[name] for name in step.call.after)
        makers = [graph.producers[n].name for n in step.call.reads() if n in graph.producers]
        if max(place[name] for name in makers) < last:
            steps = [s for s in plan.steps if s is not step]
            steps.insert(last, step)
            return replace(plan, steps=tuple(steps))
    return None


def swapped_arguments(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    fits = [
        i
        for i, step in enumerate(steps)
        if len(step.call.args) > 1
        and isinstance(step.call.args[0], str)
        and isinstance(step.call.args[1], str)
        and step.call.args[0] != step.call.args[1]
    ]
    i = draw.choice(fits)
    call = steps[i].call
    steps[i] = replace(
        steps[i], call=replace(call, args=(call.args[1], call.args[0], *call.args[2:]))
    )
    return replace(plan, steps=tuple(steps))


def missing_update(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps) if step.call.kind is Kind.UPDATE])
    gone = steps.pop(i)
    steps[i - 1] = replace(steps[i - 1], frees=steps[i - 1].frees + gone.frees)
    return replace(plan, steps=tuple(steps))


def double_update(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    i = draw.choice([i for i, step in enumerate(steps) if step.call.kind is Kind.UPDATE])
    steps.insert(i, Step(steps[i].call, ()))
    return replace(plan, steps=tuple(steps))


def shared_storage(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    """Claim that a result lives in the storage of another value that is still alive."""
    forward = [s.call for s in plan.steps if s.call.kind is Kind.LAYER]
    a, b = draw.sample([next(call.makes()) for call in forward], 2)
    values = dict(plan.values)
    if values[a].view_of or values[b].view_of:
        return None
    values[b] = replace(values[b], view_of=a)
    return replace(plan, values=values)


def wrong_order(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    i = draw.randrange(len(steps) - 1)
    if not set(steps[i].call.makes()) & set(steps[i + 1].call.reads()):
        return None
    steps[i], steps[i + 1] = steps[i + 1], steps[i]
    return replace(plan, steps=tuple(steps))


def missing_step(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    steps = list(plan.steps)
    steps.pop(draw.choice([i for i, s in enumerate(steps) if s.call.kind is Kind.BACKWARD]))
    return replace(plan, steps=tuple(steps))


def wrong_spec(graph: Graph, plan: Plan, draw: random.Random) -> Plan | None:
    values = dict(plan.values)
    name = draw.choice([n for s in plan.steps for n in s.call.reads()])
    values[name] = replace(values[name], spec=Spec((7,), torch.float64))
    return replace(plan, values=values)


FAULTS: list[Fault] = [
    early_free,
    never_freed,
    freed_twice,
    update_before_reader,
    swapped_arguments,
    missing_update,
    double_update,
    shared_storage,
    wrong_order,
    missing_step,
    wrong_spec,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_verifier_rejects_planted_faults(registry: Registry, fault: Fault) -> None:
    planted = 0
    for seed in range(20):
        graph, plan = training(random_dag(15, seed), registry)
        broken = fault(graph, plan, random.Random(seed))
        if broken is None:
            continue
        planted += 1
        with pytest.raises(PlanError, match="plan rejected"):
            verify(graph, broken)
    if fault is not update_before_reader:  # rare: the schedule puts most updates last anyway
        assert planted >= 5


def test_verifier_rejects_a_value_read_after_its_slot_changed(registry: Registry) -> None:
    graph, plan = training(parse(SEED), registry, shape=(2, 3, 8, 8))
    bias_update = graph.calls["upsampling_2.bias:update"]
    # An update that does not wait for the readers of what it overwrites.
    hasty = replace(bias_update, args=("upsampling_2.bias", "@lr", *bias_update.args[2:]), after=())
    graph = replace(graph, calls={**graph.calls, hasty.name: hasty})
    steps = [step for step in plan.steps if step.call.name != hasty.name]
    steps.insert(0, Step(hasty, ()))
    message = "upsampling_2.*reads 'upsampling_2.bias', but its storage now holds something else"
    with pytest.raises(PlanError, match=message):
        verify(graph, replace(plan, steps=tuple(steps)))


def test_any_name_of_a_description_gives_a_plan_that_runs() -> None:
    description = {
        "inputs": {"class": {"channels": 2}},
        "layers": [
            {"id": "_2", "dropout": {"p": 0.5}},
            {"id": "lambda", "conv2d": {"out_channels": 2, "kernel_size": 1}},
        ],
    }
    program = Model(description).compile(
        (1, 2, 3, 3), loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu"
    )
    assert float(program.step(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3))) > 0

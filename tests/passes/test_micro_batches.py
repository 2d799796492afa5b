"""A step that computes its batch in micro-batches, whose gradients are added up by pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet import SGD, CompileOptions
from graphnet.description import UpdateSettings, expand, losses_for, parse
from graphnet.errors import GraphError, PlanError
from graphnet.executors import prepare
from graphnet.graph import LR, RANK, STEP, Graph, Kind
from graphnet.model import set_up
from graphnet.passes import GRAD, MicroBatches
from graphnet.plan import Plan, adding_plan, forward_graph, training_plan
from graphnet.plan.verify import verify_training
from graphnet.sdk import ALONE, Accumulate, MicroBatch, Processes, default_registry

REGISTRY = default_registry()
CONV = {"out_channels": 8, "kernel_size": 3, "padding": 1}
LAYERS: list[Any] = [
    {"conv2d": CONV, "id": "c1"},
    {"group_norm": {"num_groups": 2}},
    "relu",
    {"conv2d": CONV, "id": "c2"},
    {"conv2d": CONV, "share": "c2"},
    {"conv2d": {**CONV, "out_channels": 3}},
]
NET = {"input": {"channels": 3}, "layers": LAYERS}
RANDOM = {"input": {"channels": 3}, "layers": [*LAYERS[:3], {"dropout": {"p": 0.5}}, *LAYERS[3:]]}
UPDATES = UpdateSettings(optimizer=SGD(lr=1.0))
SHAPE = (2, 3, 8, 8)  # of a micro-batch
WHOLE, FOUR, ONE_OF_FOUR = MicroBatches(), MicroBatches(4, 4), MicroBatches(1, 4)


def plan_of(
    parts: MicroBatches,
    *,
    net: Mapping[str, Any] = NET,
    shape: Sequence[int] = SHAPE,
    updates: UpdateSettings = UPDATES,
    loss: object = "mse",
    adding: bool = False,
    processes: Processes = ALONE,
    **options: Any,
) -> Plan:
    network = expand(parse(net), REGISTRY)
    chosen = CompileOptions(device="cpu", **{"kernels": "aten", **options})
    graph = forward_graph(network, [shape], chosen)
    make = adding_plan if adding else training_plan
    losses = losses_for(loss, graph.output_names, REGISTRY)
    return make(
        graph,
        REGISTRY,
        chosen,
        losses=losses,
        updates=updates,
        parts=parts,
        processes=processes,
    )


def tensors_of(plan: Plan, *, step: int = 0, rank: int = 0, lr: float = 1.0) -> dict[str, Tensor]:
    """The arguments of a plan but its inputs; weights depend on their names alone."""
    tensors: dict[str, Tensor] = {}
    for name in plan.arguments[len(plan.inputs) :]:
        value = plan.values[name]
        if value.kind is Kind.SCALAR:
            number = {LR: lr, STEP: step, RANK: rank}.get(name, 7)
            tensors[name] = torch.full((), number, dtype=value.spec.dtype)
        else:
            seed = sum(map(ord, name))
            tensors |= set_up([value], seed=seed)
    return tensors


def run(
    plan: Plan, batch: Sequence[Tensor], tensors: dict[str, Tensor], executor: str = "eager"
) -> tuple[Tensor, ...]:
    with torch.no_grad():
        packed = [
            tensor.to(plan.values[name].spec.dtype)
            for tensor, name in zip(batch, plan.inputs, strict=True)
        ]
        return prepare(plan, executor)(*packed, *tensors.values())


def batch_of(samples: int, count: int = 2) -> list[Tensor]:
    """Inputs, targets, and for a count of 3 a mask, which is empty for the first quarter of the samples."""
    draw = torch.Generator().manual_seed(3)
    first, second, third = (torch.rand(samples, *SHAPE[1:], generator=draw) for _ in range(3))
    mask = (third < 0.3).to(third.dtype)
    mask[: samples // 4] = 0
    return [first, second, mask][:count]


def updated(
    parts: MicroBatches, batch: Sequence[Tensor], *, step: int = 5, **options: Any
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The loss of a step, the parameters before it, and those after an update by SGD with lr 1."""
    plan = plan_of(parts, **options)
    tensors = tensors_of(plan, step=step)
    before = {name: tensors[name].clone() for name in plan.of(Kind.PARAMETER)}
    loss, *_ = run(plan, batch, tensors)
    return loss, before, {name: tensors[name] for name in before}


def gradients(batch: Sequence[Tensor], *, rank: int, step: int = 5, **options: Any) -> Any:
    """The share of the loss, and the gradients, of one process of four."""
    plan = plan_of(ONE_OF_FOUR, adding=True, processes=Processes(4), **options)
    tensors = tensors_of(plan, step=step, rank=rank)
    loss, *_ = run(plan, [tensor.chunk(4)[rank] for tensor in batch], tensors)
    slots = {name: plan.values[name] for name in plan.slots}
    return loss, {value.of: tensors[n] for n, value in slots.items() if value.role == GRAD}


def by_pairs(all_four: Sequence[Tensor]) -> Tensor:
    g0, g1, g2, g3 = all_four
    return (g0 + g1) + (g2 + g3)


def test_step_is_that_of_the_whole_batch() -> None:
    batch = batch_of(8)
    loss, before, after = updated(FOUR, batch, dtype="float64")
    expected, _, whole = updated(WHOLE, batch, shape=(8, *SHAPE[1:]), dtype="float64")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for name, parameter in whole.items():
        assert not torch.equal(after[name], before[name])
        torch.testing.assert_close(after[name], parameter, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("net", [NET, RANDOM], ids=["plain", "dropout"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_process_with_four_micro_batches_has_the_bits_of_four_processes(
    net: dict[str, Any], precision: str
) -> None:
    batch = batch_of(8)
    options = {"net": net, "precision": precision}
    loss, before, after = updated(FOUR, batch, **options)
    losses, parts = zip(*(gradients(batch, rank=rank, **options) for rank in range(4)), strict=True)
    assert torch.equal(loss, by_pairs(losses))
    for name, parameter in before.items():
        assert torch.equal(after[name], parameter - by_pairs([part[name] for part in parts]))


def test_dropout_has_another_mask_in_each_micro_batch_and_step() -> None:
    sample = torch.rand(1, *SHAPE[1:]).expand(8, -1, -1, -1)  # the same in all micro-batches
    found = [
        gradients([sample, sample], rank=rank, step=step, net=RANDOM)[0]
        for rank in range(4)
        for step in range(2)
    ]
    assert len({float(loss) for loss in found}) == 8


def test_gradients_of_each_micro_batch_are_accumulated_apart() -> None:
    """As four processes do it, which add up their gradients only in the step that updates."""
    updates = replace(UPDATES, accumulate=2)
    batches = [batch_of(8), [tensor.flip(0) for tensor in batch_of(8)]]
    adding = plan_of(FOUR, adding=True, updates=updates)
    updating = plan_of(FOUR, updates=updates)
    tensors = tensors_of(updating)
    before = {name: tensors[name].clone() for name in updating.of(Kind.PARAMETER)}
    for plan, batch in zip((adding, updating), batches, strict=True):
        run(plan, batch, {name: tensors[name] for name in plan.arguments[len(plan.inputs) :]})
    seen = [
        [gradients(batch, rank=rank, updates=updates)[1] for batch in batches] for rank in range(4)
    ]
    for name, parameter in before.items():
        sums = [first[name] + second[name] for first, second in seen]
        assert torch.equal(tensors[name], parameter - by_pairs(sums))
        slots = [n for n in updating.slots if updating.values[n].of == name]
        assert len(slots) == 4
        assert not any(tensors[slot].any() for slot in slots)


def test_losses_that_a_step_reports_are_means_over_the_batch() -> None:
    batch = batch_of(8)
    updates = replace(UPDATES, report=("losses", "gradient_norm"))
    loss = ["mse", {"l1": {}, "weight": 0.5}]
    plans = [
        plan_of(parts, shape=shape, updates=updates, loss=loss, dtype="float64")
        for parts, shape in ((FOUR, SHAPE), (WHOLE, (8, *SHAPE[1:])))
    ]
    found, expected = (run(plan, batch, tensors_of(plan)) for plan in plans)
    assert len(found) == 4
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "options", [{"memory": "90%"}, {"saved_dtype": "bfloat16"}, {"kernels": "auto"}], ids=str
)
def test_other_passes_follow(options: dict[str, Any]) -> None:
    batch = batch_of(8)
    plan = plan_of(FOUR, **options)
    tensors = [tensors_of(plan) for _ in range(2)]
    losses = [
        run(plan, batch, each, executor)
        for each, executor in zip(tensors, ("eager", "reference"), strict=True)
    ]
    assert torch.equal(*(loss for loss, *_ in losses))
    torch.testing.assert_close(tensors[0], tensors[1], rtol=0, atol=0)


def test_micro_batches_run_one_after_the_other() -> None:
    shape = (4, 3, 32, 32)
    parts, whole = plan_of(FOUR, shape=shape), plan_of(WHOLE, shape=(16, *shape[1:]))
    assert parts.peak_bytes < 0.4 * whole.peak_bytes
    order = [step.call.part for step in parts.steps if step.call.kind is Kind.BACKWARD]
    assert [one for one in order if one is not None] == sorted(
        one for one in order if one is not None
    )


def test_statistics_of_the_whole_batch_are_refused() -> None:
    net = {"input": {"channels": 3}, "layers": [*LAYERS[:1], "batch_norm2d", *LAYERS[2:]]}
    with pytest.raises(GraphError, match=r"statistics of the whole batch.* such as group_norm"):
        plan_of(FOUR, net=net)


def another_part(graph: Graph) -> Iterator[Graph]:
    """A micro-batch that is computed twice in the place of another one."""
    for call in graph.calls.values():
        if isinstance(call.layer, MicroBatch):
            layer = replace(call.layer, index=(call.layer.index + 1) % 4)
            yield replace(graph, calls={**graph.calls, call.name: replace(call, layer=layer)})


def value_of_another_part(graph: Graph) -> Iterator[Graph]:
    """A call that reads the value of another micro-batch."""
    for call in graph.calls.values():
        if call.part == 1 and call.kind is Kind.LOSS:
            args = tuple(
                arg.replace("@1", "@2") if isinstance(arg, str) else arg for arg in call.args
            )
            yield replace(graph, calls={**graph.calls, call.name: replace(call, args=args)})


def part_is_left_out(graph: Graph) -> Iterator[Graph]:
    """A sum of gradients or losses in which one micro-batch stands for another."""
    for call in graph.calls.values():
        if (
            isinstance(call.layer, Accumulate)
            and call.part is None
            and call.kind in (Kind.ACCUMULATE, Kind.LOSS)
        ):
            ((first, _),) = call.args
            yield replace(
                graph, calls={**graph.calls, call.name: replace(call, args=((first, first),))}
            )


@pytest.mark.parametrize(
    "fault", [another_part, value_of_another_part, part_is_left_out], ids=lambda f: f.__name__
)
def test_verifier_rejects_wrong_parts(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Graph] = []

    def remember(graph: Graph, **given: Any) -> None:
        seen.append(graph)
        verify_training(graph, **given)

    monkeypatch.setattr("graphnet.plan.check_pass.verify_training", remember)
    plan_of(FOUR)
    graph = next(one for one in seen if any(c.kind is Kind.UPDATE for c in one.calls.values()))
    wrong = [*fault(graph)]
    assert wrong
    for one in wrong:
        with pytest.raises(PlanError):
            verify_training(one, updates=True)

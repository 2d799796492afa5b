"""Several processes that compute parts of a batch have the gradients of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet import SGD, Adam, AdamW, Muon
from graphnet.description import UpdateSettings
from graphnet.errors import PlanError
from graphnet.graph import RANK, STEP, Call, Graph, Kind, Value, renamed
from graphnet.model import join_processes
from graphnet.passes import MicroBatches
from graphnet.plan.verify import verify_training
from graphnet.sdk import (
    AllGather,
    AllReduce,
    AssignGathered,
    Definition,
    FromBucket,
    Processes,
    ReduceScatter,
    Scaled,
    Shard,
    Times,
    ToBucket,
    Weighted,
)
from tests.passes.test_micro_batches import (
    LAYERS,
    NET,
    RANDOM,
    SHAPE,
    UPDATES,
    batch_of,
    plan_of,
    run,
    tensors_of,
    updated,
)
from tests.support.processes import in_processes

NORMS = {"input": {"channels": 3}, "layers": [*LAYERS[:1], "batch_norm2d", *LAYERS[2:]]}
SETTINGS = {
    "plain": UPDATES,
    "clip": replace(UPDATES, clip_grad_norm=0.01),
    "momentum": replace(UPDATES, optimizer=SGD(lr=1.0, momentum=0.9), ema=0.9),
}
SHARDED = {
    "adam": replace(UPDATES, optimizer=Adam(lr=0.01), shard="optimizer"),
    "adam, clip, ema": replace(
        UPDATES,
        optimizer=AdamW(lr=0.01),
        clip_grad_norm=0.01,
        ema=0.9,
        report=("gradient_norm",),
        shard="optimizer",
    ),
    "muon": replace(UPDATES, optimizer=Muon(lr=0.01), clip_grad_norm=0.01, shard="optimizer"),
}


def groups_of(count: int, *, pairs: bool) -> tuple[str, ...]:
    """Name the groups of processes that add up; every process gives the same names to its own groups."""
    distributed = torch.distributed
    if not pairs:
        return (distributed.group.WORLD.group_name,)
    names: list[str] = []
    for distance in (1, 2)[: count.bit_length() - 1]:
        for first in range(count):
            if not first & distance:
                group = distributed.new_group([first, first | distance])
                if distributed.get_rank() in (first, first | distance):
                    torch._C._distributed_c10d._register_process_group(f"pairs {distance}", group)
        names.append(f"pairs {distance}")
    return tuple(names)


def steps(
    count: int, deterministic: bool, groups: tuple[str, ...], options: dict[str, Any]
) -> dict[str, Tensor]:
    """The losses of three steps on this process's part of the batches, and the slots afterwards."""
    options = {**options}
    rank = torch.distributed.get_rank() if count > 1 else 0
    total = 4 if deterministic else count
    bucket_bytes = options.pop("bucket_bytes", 1 << 20)
    reduce_dtype = options.pop("reduce_dtype", None)
    plan = plan_of(
        MicroBatches(total // count, total),
        processes=Processes(count, groups, bucket_bytes, reduce_dtype),
        shape=(8 // total, *SHAPE[1:]),
        **options,
    )
    tensors = tensors_of(plan, rank=rank, lr=0.05)
    losses = []
    for number in range(3):
        whole = batch_of(8, len(plan.inputs))
        batch = [tensor.roll(number, 0).chunk(count)[rank] for tensor in whole]
        losses.append(torch.stack(run(plan, batch, tensors)))
    slots = {name: gathered(tensors[name], plan.values[name]) for name in plan.slots}
    return {"losses": torch.stack(losses), **slots}


def gathered(tensor: Tensor, value: Value) -> Tensor:
    """A slot, or the tensor of which each process has a shard in it."""
    return tensor if value.sharding is None else join_processes().whole(tensor, value.sharding)


def many_steps(count: int, deterministic: bool, cases: list[dict[str, Any]]) -> list[Any]:
    groups = groups_of(count, pairs=deterministic) if count > 1 else ()
    return [steps(count, deterministic, groups, case) for case in cases]


CASES: list[dict[str, Any]] = [
    {"net": net, "updates": updates, "dtype": dtype}
    for net in (NET, RANDOM)
    for updates in SETTINGS.values()
    for dtype in ("float32", "float64")
] + [
    {"precision": "bfloat16"},
    {"bucket_bytes": 100},
    {"memory": "90%"},
    {"kernels": "auto"},
    {"loss": "masked_mse", "dtype": "float64"},
    {"loss": ["masked_mse", "mse"]},
    *({"updates": updates} for updates in SHARDED.values()),
    {"updates": SHARDED["adam"], "dtype": "float64", "bucket_bytes": 100},
    {"updates": SHARDED["adam, clip, ema"], "dtype": "float64"},
    {"updates": SHARDED["adam"], "precision": "bfloat16", "kernels": "auto"},
    {"precision": "float16"},
    {"updates": SHARDED["adam, clip, ema"], "precision": "float16"},
    {"updates": SHARDED["adam"], "memory": "90%"},
]


@pytest.mark.parametrize("count", [2, 4])
def test_deterministic_steps_have_the_bits_of_one_process(count: int) -> None:
    (expected,) = in_processes(1, many_steps, 1, True, CASES)
    for found in in_processes(count, many_steps, count, True, CASES):
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.keys() == theirs.keys()
            for name, tensor in theirs.items():
                assert torch.equal(mine[name], tensor), name


def test_a_loss_with_a_mask_is_that_of_the_whole_batch() -> None:
    """Not the mean of the losses of parts whose masks select different numbers of pixels."""
    options = {"loss": "masked_mse", "dtype": "float64"}
    expected, _, whole = updated(MicroBatches(), batch_of(8, 3), shape=(8, *SHAPE[1:]), **options)
    found, _, weights = updated(MicroBatches(4, 4), batch_of(8, 3), **options)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for name, tensor in whole.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("count", [2, 4])
def test_steps_are_those_of_one_process_up_to_rounding(count: int) -> None:
    cases = [case for case in CASES if case.get("net") is not RANDOM and "precision" not in case]
    (expected,) = in_processes(1, many_steps, 1, False, cases)
    every = in_processes(count, many_steps, count, False, cases)
    for found in every:
        for case, mine, theirs in zip(cases, found, expected, strict=True):
            bound = 1e-12 if case.get("dtype") == "float64" else 1e-5
            for name, tensor in theirs.items():
                torch.testing.assert_close(mine[name], tensor, rtol=bound, atol=bound)


@pytest.mark.parametrize("updates", [UPDATES, SHARDED["adam"]], ids=["whole", "divided"])
def test_gradients_are_rounded_to_the_dtype_in_which_they_are_sent(updates: Any) -> None:
    case = {"updates": updates, "reduce_dtype": "bfloat16"}
    ((exact,),) = in_processes(1, many_steps, 1, False, [case])
    (mine,), (other,) = in_processes(2, many_steps, 2, False, [case])
    for name, tensor in exact.items():
        assert torch.equal(mine[name], other[name])
        torch.testing.assert_close(mine[name], tensor, rtol=0.02, atol=0.02)
    assert not torch.allclose(mine["c1.weight"], exact["c1.weight"], rtol=1e-5, atol=1e-7)


FROZEN = UpdateSettings(
    optimizer=SGD(lr=0.1), parameters=({"match": "batch_norm2d_1.*", "freeze": True},)
)
SYNCED = {
    "input": {"channels": 3},
    "layers": [
        *LAYERS[:1],
        {"batch_norm2d": {"sync": True}},
        "relu",
        {"batch_norm2d": {"sync": True, "affine": False}},
        *LAYERS[3:],
    ],
}


def test_norms_with_sync_train_as_one_process_on_the_whole_batch() -> None:
    cases = [
        {"net": SYNCED, "dtype": "float64"},
        {"net": SYNCED, "dtype": "float64", "updates": SHARDED["adam, clip, ema"]},
        {"net": SYNCED, "dtype": "float64", "kernels": "reference", "memory": "95%"},
        {"net": SYNCED, "precision": "bfloat16"},
        {"net": SYNCED, "dtype": "float64", "updates": FROZEN},
    ]
    (expected,) = in_processes(1, many_steps, 1, False, cases)
    for count in (2, 4):
        for found in in_processes(count, many_steps, count, False, cases):
            for case, mine, theirs in zip(cases, found, expected, strict=True):
                bound = 1e-10 if "dtype" in case else 0.05
                for name, tensor in theirs.items():
                    torch.testing.assert_close(mine[name], tensor, rtol=bound, atol=bound)


def one_step_with_norms(count: int) -> dict[str, Tensor]:
    rank = torch.distributed.get_rank()
    plan = plan_of(
        MicroBatches(1, count),
        processes=Processes(count, groups_of(count, pairs=False)),
        shape=(4, *SHAPE[1:]),
        net=NORMS,
    )
    tensors = tensors_of(plan, rank=rank)
    run(plan, [tensor.chunk(count)[rank] for tensor in batch_of(8)], tensors)
    return {name: tensors[name] for name in plan.slots if "running" in name}


def test_running_statistics_are_the_means_over_the_processes() -> None:
    first, second = in_processes(2, one_step_with_norms, 2)
    halves = []
    for half in zip(*(tensor.chunk(2) for tensor in batch_of(8)), strict=True):
        plan = plan_of(MicroBatches(), shape=(4, *SHAPE[1:]), net=NORMS)
        tensors = tensors_of(plan)
        run(plan, half, tensors)
        halves.append(tensors)
    assert len(first) == 2
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert not torch.equal(halves[0][name], halves[1][name])
        torch.testing.assert_close(tensor, (halves[0][name] + halves[1][name]) / 2)


GROUPS = "pairs 1", "pairs 2"
TWO, FOUR_IN_PAIRS = Processes(2, ("all",), 100), Processes(4, GROUPS, 100)
WAYS: dict[str, tuple[Processes, dict[str, Any]]] = {
    "two": (TWO, {}),
    "pairs": (FOUR_IN_PAIRS, {}),
    "clip": (TWO, {"updates": SETTINGS["clip"]}),
    "accumulate": (TWO, {"updates": replace(UPDATES, accumulate=2)}),
    "norms": (TWO, {"net": NORMS}),
    "sync": (TWO, {"net": SYNCED}),
    "weights": (FOUR_IN_PAIRS, {"loss": ["masked_mse", "mse"]}),
    **{f"divided, {name}": (TWO, {"updates": updates}) for name, updates in SHARDED.items()},
    "divided, pairs": (FOUR_IN_PAIRS, {"updates": SHARDED["adam, clip, ema"]}),
    "divided, float16": (TWO, {"updates": SHARDED["adam"], "precision": "float16"}),
}


def changed(graph: Graph, *calls: Call) -> Graph:
    return replace(graph, calls={**graph.calls, **{call.name: call for call in calls}})


def reduces(graph: Graph) -> list[Call]:
    return [call for call in graph.calls.values() if isinstance(call.layer, AllReduce)]


def taken(graph: Graph) -> list[Call]:
    """The calls that take the sum of a whole value from a bucket."""
    sums = {f"{call.name}:wait" for call in reduces(graph)}
    return [call for call, _ in of_kind(graph, FromBucket) if call.args[0] in sums]


def missing(graph: Graph) -> Iterator[Graph]:
    """Readers of a sum over all processes read this process's summand."""
    for call in taken(graph):
        wait = graph.producers[str(call.args[0])]
        start = graph.producers[str(wait.args[0])]
        specs = [graph.values[name].spec for name in start.reads()]
        place = 0
        for name, spec in zip(start.reads(), specs, strict=True):
            if place == call.layer.start:  # type: ignore[attr-defined]
                names = {next(call.makes()): name}
            place += spec.numel
        readers = [graph.calls[one] for one in graph.readers.get(next(call.makes()), ())]
        outputs = tuple(names.get(name, name) for name in graph.outputs)
        yield replace(
            changed(
                graph,
                *(
                    replace(one, args=tuple(renamed(arg, names) for arg in one.args))
                    for one in readers
                ),
            ),
            outputs=outputs,
        )


def doubled(graph: Graph) -> Iterator[Graph]:
    """A bucket is added up a second time."""
    for call in reduces(graph):
        (wait,) = (graph.calls[one] for one in graph.readers[next(call.makes())])
        again = replace(call, name=f"{call.name}:2", args=(tuple(wait.makes()),), results=("r2",))
        layer = replace(call.layer, channels_last=(False,))  # type: ignore[arg-type]
        waited = replace(wait, name=f"{wait.name}:2", args=("r2",), results=("w2",))
        of = graph.values[next(call.makes())]
        values = {**graph.values, "r2": replace(of, name="r2"), "w2": replace(of, name="w2")}
        names = {next(wait.makes()): "w2"}
        readers = [graph.calls[one] for one in graph.readers[next(wait.makes())]]
        moved = [
            replace(one, args=tuple(renamed(arg, names) for arg in one.args)) for one in readers
        ]
        added = replace(again, layer=layer)
        yield replace(changed(graph, added, waited, *moved), values=values)


def wrong_group(graph: Graph) -> Iterator[Graph]:
    for call in reduces(graph):
        for group in {"some", *GROUPS} - {call.layer.group}:  # type: ignore[attr-defined]
            yield changed(graph, replace(call, layer=replace(call.layer, group=group)))  # type: ignore[call-arg]


def wrong_scale(graph: Graph) -> Iterator[Graph]:
    for call in graph.calls.values():
        if isinstance(call.layer, Times) and call.kind is Kind.LOSS and call.method == "forward":
            for factor in {1.0, 0.3, 2.0, -0.5} - {call.layer.factor}:
                yield changed(graph, replace(call, layer=Times(factor=factor)))


def not_waited(graph: Graph) -> Iterator[Graph]:
    """A result is read while the exchange is still going on."""
    for call in taken(graph):
        wait = graph.producers[str(call.args[0])]
        yield changed(graph, replace(call, args=wait.args))


def another_place(graph: Graph) -> Iterator[Graph]:
    """The gradient of another parameter of the same shape is taken from a bucket."""
    for call in taken(graph):
        for other in taken(graph):
            same = call.layer.shape == other.layer.shape  # type: ignore[attr-defined]
            if same and (call.args, call.layer) != (other.args, other.layer):
                yield changed(graph, replace(call, args=other.args, layer=other.layer))


def after_a_factor(graph: Graph) -> Iterator[Graph]:
    """A gradient is multiplied by a number of this process's own before it is added up."""
    for call in reduces(graph):
        (arg,) = call.args
        assert isinstance(arg, tuple)
        spec = graph.values[arg[0]].spec
        if graph.values[arg[0]].spec.shape == ():
            continue
        by = next(
            n
            for n in graph.values
            if n in graph.producers
            and not graph.values[n].spec.shape
            and graph.values[n].kind is Kind.LOSS
        )
        scaled = Call("own", Kind.SCALE, Scaled(), "forward", (arg[0], by), ("own",), "own", "own")
        values = {**graph.values, "own": Value("own", spec, Kind.SCALE)}
        moved = replace(call, args=(("own", *arg[1:]),))
        yield replace(changed(graph, scaled, moved), values=values)


def late(graph: Graph) -> Iterator[Graph]:
    """Updates read this process's summands, and the sum over all processes is made after them."""
    updates = tuple(call.name for call in graph.calls.values() if call.kind is Kind.UPDATE)
    for one in missing(graph):
        for call in reduces(one):
            yield changed(one, replace(call, after=updates))


def other_weights(graph: Graph) -> Iterator[Graph]:
    """A loss with a mask is weighted by something else, or divided by something else than all weights."""
    for call in graph.calls.values():
        if isinstance(call.layer, Weighted) and call.method == "forward":
            loss, weight, total = map(str, call.args)
            taken = graph.producers[total]
            sent = graph.producers[next(graph.producers[str(taken.args[0])].reads())]
            for wrong in (loss, weight, *sent.reads()):
                yield changed(graph, replace(call, args=(loss, weight, wrong)))
            yield changed(graph, replace(call, args=(loss, loss, total)))
            yield changed(graph, replace(call, args=(loss, total, total)))
            yield changed(graph, replace(call, layer=Times(factor=0.25), args=(loss,)))


def of_kind(graph: Graph, kind: type[Definition]) -> Iterator[tuple[Call, Any]]:
    for call in graph.calls.values():
        if isinstance(call.layer, kind):
            yield call, call.layer


def wrong_group_of_shards(graph: Graph) -> Iterator[Graph]:
    for call, layer in (*of_kind(graph, ReduceScatter), *of_kind(graph, AllGather)):
        for group in {"some", *GROUPS} - {layer.group}:
            yield changed(graph, replace(call, layer=replace(layer, group=group)))


def shard_of_another_rank(graph: Graph) -> Iterator[Graph]:
    for call, _ in of_kind(graph, Shard):
        yield changed(graph, replace(call, args=(call.args[0], STEP)))


def shard_of_another_parameter(graph: Graph) -> Iterator[Graph]:
    for call, layer in of_kind(graph, Shard):
        for other, same in of_kind(graph, Shard):
            if other is not call and layer == same:
                yield changed(graph, replace(call, args=other.args))


def cut_in_another_way(graph: Graph) -> Iterator[Graph]:
    """The parameter, its gradient or the gathered shards, but not all of them."""
    for kind in (Shard, AssignGathered):
        for call, layer in of_kind(graph, kind):
            if len(layer.sharding.shape) == 4:
                last = not layer.sharding.channels_last
                wrong = replace(layer.sharding, channels_last=last)
                yield changed(graph, replace(call, layer=replace(layer, sharding=wrong)))
    for call, layer in of_kind(graph, ToBucket):
        for number, one in enumerate(layer.shardings):
            if len(one.shape) == 4:
                several = [*layer.shardings]
                several[number] = replace(one, channels_last=not one.channels_last)
                wrong = replace(layer, shardings=tuple(several))
                yield changed(graph, replace(call, layer=wrong))


def own_gradient(graph: Graph) -> Iterator[Graph]:
    """The shard of this process's gradient, in the place of that of the sum."""
    for packing, layer in of_kind(graph, ToBucket):
        for gradient, sharding in zip(packing.reads(), layer.shardings, strict=True):
            found = [
                call
                for call, taking in of_kind(graph, FromBucket)
                if taking.shape == (sharding.size,)
                and graph.values[next(call.makes())].sharding == sharding
            ]
            for taken in found:
                result = next(taken.makes())
                cut = replace(
                    taken, name="own", layer=Shard(sharding=sharding), args=(gradient, RANK)
                )
                value = replace(graph.values[result], name="own", view_of=None)
                moved = [
                    replace(one, args=tuple(renamed(arg, {result: "own"}) for arg in one.args))
                    for one in map(graph.calls.__getitem__, graph.readers[result])
                ]
                values = {**graph.values, "own": value}
                yield replace(changed(graph, replace(cut, results=("own",)), *moved), values=values)


def not_written(graph: Graph) -> Iterator[Graph]:
    """A shard is updated, and no process writes the parameter."""
    for call, _ in of_kind(graph, AssignGathered):
        yield replace(graph, calls={n: c for n, c in graph.calls.items() if n != call.name})


def gathered_before_the_update(graph: Graph) -> Iterator[Graph]:
    for call, _ in of_kind(graph, AllGather):
        reads = [*call.reads()]
        before = {name: str(graph.values[name].view_of) for name in reads}
        if all(one in graph.values and "shard" in one for one in before.values()):
            yield changed(graph, replace(call, args=(tuple(before.values()),)))


def gathered_into_another_place(graph: Graph) -> Iterator[Graph]:
    for call, layer in of_kind(graph, AssignGathered):
        for other, same in of_kind(graph, AssignGathered):
            if other is not call and same.sharding == layer.sharding:
                yield changed(graph, replace(call, args=(call.args[0], other.args[1]), layer=same))


def added_up_twice(graph: Graph) -> Iterator[Graph]:
    """A partial sum over one group is added up over the same group again."""
    for call, layer in of_kind(graph, ReduceScatter):
        yield changed(graph, replace(call, layer=replace(layer, size=layer.size + 1)))


OF_SHARDS = [
    wrong_group_of_shards,
    shard_of_another_rank,
    shard_of_another_parameter,
    cut_in_another_way,
    own_gradient,
    not_written,
    gathered_before_the_update,
    gathered_into_another_place,
    added_up_twice,
]
FAULTS = [
    other_weights,
    missing,
    late,
    doubled,
    wrong_group,
    wrong_scale,
    not_waited,
    another_place,
    after_a_factor,
]


def graphs_of(way: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Graph, Processes]:
    """The graph of a step of several processes after all updates have been added."""
    processes, options = WAYS[way]
    seen: list[Graph] = []

    def remember(graph: Graph, **given: Any) -> None:
        seen.append(graph)
        verify_training(graph, **given)

    monkeypatch.setattr("graphnet.plan.check_pass.verify_training", remember)
    plan_of(MicroBatches(1, processes.count), processes=processes, **options)
    return seen[-1], processes


@pytest.mark.parametrize("way", [way for way in WAYS if "divided" in way])
def test_verifier_rejects_wrong_shards(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, processes = graphs_of(way, monkeypatch)
    verify_training(graph, updates=True, processes=processes)
    for fault in OF_SHARDS:
        wrong = [*fault(graph)]
        assert wrong or "muon" in way, fault.__name__
        for number, one in enumerate(wrong):
            try:
                verify_training(one, updates=True, processes=processes)
            except PlanError:
                continue
            pytest.fail(f"{fault.__name__} {number} was accepted")


def test_divided_states_change_no_bit() -> None:
    """One process, whose states are not divided, has the bits of two that divide them."""
    divided = [{"updates": SHARDED["adam"]}, {"updates": SHARDED["adam"], "dtype": "float64"}]
    whole = [{**one, "updates": replace(one["updates"], shard=None)} for one in divided]
    (expected,) = in_processes(1, many_steps, 1, True, whole)
    for found in in_processes(2, many_steps, 2, True, divided):
        for mine, theirs in zip(found, expected, strict=True):
            for name, tensor in theirs.items():
                assert torch.equal(mine[name], tensor), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_verifier_rejects_wrong_exchanges(
    fault: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, processes = graphs_of(way, monkeypatch)
    wrong = [*fault(graph)]
    assert wrong or "divided" in way or (fault is other_weights and way != "weights")
    for one in wrong:
        with pytest.raises(PlanError):
            verify_training(one, updates=True, processes=processes)

"""Autotune: which kernels are used when their times are known, and that timing works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from graphnet.graph import Graph
from graphnet.model import Model
from graphnet.passes import Stopwatch, autotune, choose, plain_calls, substitute
from graphnet.passes.substitute import Candidate, candidates
from graphnet.sdk import Registry, load_registry
from graphnet.system import Cache
from tests.support.models import SEED, Acme

Times = dict[str, float]
SHAPE = (2, 3, 8, 8)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme()], entry_points=False)


def placed(registry: Registry, times: Times, model: Model | None = None) -> dict[str, str]:
    """Call -> the kernel in its place, where a kernel's time is that of its name, else 10."""

    def seconds(candidate: Candidate) -> float:
        return times.get(candidate.entry or candidate.root, 10.0)

    kernels = choose(registry, "auto")
    graph = (model or Model(SEED, registry=registry)).graph(SHAPE)
    tuned = autotune(graph, kernels=kernels, registry=registry, seconds=seconds)
    plain = plain_calls(tuned, kernels=kernels, registry=registry)
    done = substitute(tuned, kernels=kernels, registry=registry, plain=plain)
    return {name: type(call.layer).__name__ for name, call in done.calls.items()}


ATEN = {"aten/conv2d": 2.0, "aten/relu": 1.0, "aten/transpose_conv2d": 2.0, "aten/sigmoid": 1.0}
PATCH = {
    "patch/conv2d": 9.0,
    "patch/conv2d_relu": 2.0,
    "patch/transpose_conv2d": 2.0,
    "patch/transpose_conv2d_relu": 2.0,
}


def test_blocks_are_used_where_the_chain_as_a_whole_is_faster(registry: Registry) -> None:
    found = placed(registry, {**ATEN, **PATCH})
    assert found == {
        "relu_1": "PatchConv2dReLU",
        "relu_2": "PatchConv2dReLU",
        "relu_3": "PatchTransposeConv2dReLU",
        "upsampling_2": "PatchTransposeConv2d",
        "sigmoid_1": "AtenSigmoid",
    }


def test_blocks_are_not_used_where_the_chain_as_a_whole_is_slower(registry: Registry) -> None:
    slow = dict.fromkeys(PATCH, 5.0)
    found = placed(registry, {**ATEN, **slow})
    assert set(found.values()) == {"AtenConv2d", "AtenReLU", "AtenTransposeConv2d", "AtenSigmoid"}
    assert len(found) == 8


def test_one_slow_link_does_not_cost_a_fast_chain(registry: Registry) -> None:
    """upsampling alone is slower in blocks (5 against 2), the other three are faster by 1 each."""
    times = {**ATEN, **PATCH, "patch/transpose_conv2d": 4.9}
    assert placed(registry, times)["upsampling_2"] == "PatchTransposeConv2d"
    times = {**ATEN, **PATCH, "patch/transpose_conv2d": 6.5}
    assert placed(registry, times)["upsampling_2"] == "AtenTransposeConv2d"


def test_the_layer_itself_may_be_the_fastest(registry: Registry) -> None:
    found = placed(registry, {**ATEN, "sigmoid_1": 0.5, **dict.fromkeys(PATCH, 50.0)})
    assert found["sigmoid_1"] == "Sigmoid"


def test_within_the_noise_the_order_of_registration_stands(registry: Registry) -> None:
    found = placed(registry, {**ATEN, "sigmoid_1": 0.97, **dict.fromkeys(PATCH, 50.0)})
    assert found["sigmoid_1"] == "AtenSigmoid"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def counted(
    monkeypatch: pytest.MonkeyPatch, graph: Graph, cache: Cache
) -> tuple[Callable[[Candidate], float], list[str]]:
    runs: list[str] = []
    measure = Stopwatch.measure

    def spied(self: Stopwatch, candidate: Candidate, *rest: object) -> float:
        runs.append(candidate.entry)
        return measure(self, candidate, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Stopwatch, "measure", spied)
    return Stopwatch(graph.values, cache, training=True), runs


def test_the_stopwatch_runs_every_candidate_and_remembers(
    registry: Registry, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ["acme/dropout", "acme/center", {"id": "h", "acme/halves": {}}]
    ends = [{"concat": {}, "inputs": ["h.second", "h.first"]}, "sigmoid"]
    description = {**SEED, "layers": [*SEED["layers"], *layers, *ends]}
    description["layers"][6] = {"upsampling": {"out_channels": 4, "kernel_size": 2, "stride": 2}}
    graph = Model(description, registry=registry).graph(SHAPE)
    watch, runs = counted(monkeypatch, graph, cache)
    found = list(candidates(graph, kernels=choose(registry, "auto"), registry=registry))
    times = [watch(candidate) for candidate in found]
    assert all(0 < one < 10 for one in times)
    assert len(runs) < len(found)  # equal candidates are timed once
    again = len(runs)
    assert [watch(candidate) for candidate in found] == times
    assert len(runs) == again


def test_a_tuned_model_trains_the_same(
    registry: Registry, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHNET_CACHE", str(cache.folder))
    model = Model(SEED, registry=registry)
    x, target = torch.rand(2, *SHAPE, dtype=torch.float64)
    ends = []
    for autotune_ in (False, True):
        program = model.compile(
            SHAPE, loss="mse", optimizer={"sgd": {"lr": 0.1}}, device="cpu",
            dtype=torch.float64, autotune=autotune_,
        )  # fmt: skip
        ends.append([float(program.step(x, target)) for _ in range(3)])
    assert ends[1] == pytest.approx(ends[0], rel=1e-12)
    assert [change.name for change in program.plan.changes][1] == "autotune"

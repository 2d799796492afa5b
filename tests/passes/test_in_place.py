"""In place: only where nothing else needs the storage, with the same results and less memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from graphnet.description import parse
from graphnet.errors import ContractError, LayerError
from graphnet.executors import prepare
from graphnet.graph import Graph, Kind, aliases
from graphnet.passes import in_place
from graphnet.plan import schedule, verify
from graphnet.plan.verify import verify_rewrite
from graphnet.sdk import Layer, Register, Registry, hookimpl, load_registry
from tests.support.models import Acme, random_model
from tests.support.steps import run, step_graph, tensors


class Pair(Layer):
    """x^2 twice: two results in one storage."""

    outputs: ClassVar[tuple[str, ...]] = ("first", "second")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x * x
        return y, y

    def backward(self, grad_first: Tensor, grad_second: Tensor, x: Tensor) -> Tensor:
        return 2 * x * (grad_first + grad_second)


class Wide(Layer):
    """The mean over the channels for each channel, expanded: many elements in one place."""

    def forward(self, x: Tensor) -> Tensor:
        return (2 * x.mean(1, keepdim=True)).expand_as(x)

    def backward(self, grad_y: Tensor) -> Tensor:
        return (2 * grad_y.mean(1, keepdim=True)).expand_as(grad_y)


class Flat(Layer):
    """x times 2, and its pixels in rows: a view of a channels_last x, a copy of another."""

    saves: ClassVar[tuple[str, ...]] = ("rows",)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])

    def backward(self, grad_y: Tensor, rows: Tensor) -> Tensor:
        return 2 * grad_y + 0 * rows.sum()


class Shapes:
    """A plugin with the layers above."""

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        for layer in (Pair, Wide, Flat):
            register(f"shapes/{layer.__name__.lower()}", layer)


CONV = {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(plugins=[Acme(), Shapes()], entry_points=False)


def graph_of(registry: Registry, *layers: Any) -> Graph:
    return step_graph(parse({"input": {"channels": 4}, "layers": layers}), registry)


def overwritten(graph: Graph) -> dict[str, str]:
    """Result -> what it overwrites, updates left out."""
    return {
        result: target
        for call in in_place(graph).calls.values()
        if call.kind is not Kind.UPDATE
        for result, target in call.writes.items()
    }


def test_activation_overwrites_a_value_without_other_readers(registry: Registry) -> None:
    graph = graph_of(registry, {"id": "c", **CONV}, {"id": "r", "sigmoid": {}}, {"id": "d", **CONV})
    found = overwritten(graph)
    assert found["r.y"] == "c.y"
    assert found["r.grad_x"] == "d.grad_x"
    assert found["@loss.grad_prediction"] == "d.y"
    call = in_place(graph).calls["r"]
    assert (call.function, dict(call.writes)) == ("forward_", {"r.y": "c.y"})
    assert in_place(graph).values["r.y"].view_of == "c.y"


def test_value_that_is_read_again_is_not_overwritten(registry: Registry) -> None:
    layers = [
        {"id": "c", **CONV},
        {"id": "r", "sigmoid": {}},
        {"id": "a", "add": {}, "inputs": ["c", "r"]},
    ]
    found = overwritten(graph_of(registry, *layers))
    assert "r.y" not in found
    assert found["a.y"] == "c.y"


def test_value_that_backward_reads_is_not_overwritten(registry: Registry) -> None:
    graph = graph_of(
        registry, CONV, {"id": "s", "acme/swish": {}}, {"id": "r", "sigmoid": {}}, CONV
    )
    assert graph.calls["s:backward"].args[1] == "conv2d_1.y"
    assert overwritten(graph)["r.y"] == "s.y"
    graph = graph_of(registry, CONV, {"id": "r", "relu": {}}, {"id": "q", "sigmoid": {}}, CONV)
    assert "q.y" not in overwritten(graph)  # relu's backward reads r.y


def test_inputs_and_parameters_are_never_overwritten(registry: Registry) -> None:
    found = overwritten(graph_of(registry, {"id": "r", "sigmoid": {}}, {"acme/scale": {}}))
    assert "r.y" not in found
    assert not {"$input", "@target", "@one"} & set(found.values())


def test_view_is_not_overwritten_while_its_base_is_needed(registry: Registry) -> None:
    layers = [
        {"id": "c", **CONV},
        {"id": "h", "acme/halves": {}},
        {"id": "r", "sigmoid": {}, "inputs": ["h.first"]},
        {"id": "k", "concat": {}, "inputs": ["r", "h.second"]},
    ]
    assert "r.y" not in overwritten(graph_of(registry, *layers))


def test_part_of_a_storage_is_not_overwritten(
    registry: Registry,
) -> None:
    layers = [
        CONV,
        {"id": "h", "acme/halves": {}},
        {"id": "r", "sigmoid": {}, "inputs": ["h.second"]},
    ]
    graph = graph_of(registry, *layers, CONV)
    assert graph.values["h.second"].view_of == "conv2d_1.y"
    assert "r.y" not in overwritten(graph)


def test_gradient_returned_twice_is_summed_into_by_its_last_reader_only(registry: Registry) -> None:
    """add returns grad_y for both inputs: the first sum must not write what the other branch reads."""
    layers = [
        {"id": "c", **CONV},
        {"id": "s", "acme/scale": {}},
        {"id": "a", "add": {}, "inputs": ["c", "s"]},
        {"id": "d", **CONV},
    ]
    graph = graph_of(registry, *layers)
    assert overwritten(graph)["c.y:grad"] == "a.grad_xs_0"
    order = [call.name for call in in_place(graph).order()]
    assert order.index("s:backward") < order.index("c.y:accumulate")
    assert "s:backward" in in_place(graph).calls["c.y:accumulate"].after


def test_results_in_one_storage_are_not_overwritten_while_one_is_needed(registry: Registry) -> None:
    layers = [
        {"id": "p", "shapes/pair": {}},
        {"id": "r", "sigmoid": {}, "inputs": ["p.first"]},
        {"add": {}, "inputs": ["r", "p.second"]},
        CONV,
    ]
    graph = graph_of(registry, CONV, *layers)
    assert aliases(graph).values["p.second"].view_of == "p.first"
    assert "r.y" not in overwritten(graph)
    check(graph)


def test_call_that_overwrites_a_storage_again_waits_for_the_readers_since_the_last_write_only(
    registry: Registry,
) -> None:
    """Else a chain of n calls would have n^2 / 2 waits. The write before has waited for earlier readers."""
    graph = graph_of(registry, CONV, *["sigmoid"] * 30)
    written = [call for call in in_place(graph).calls.values() if call.in_place]
    assert len(written) >= 30
    assert not any(call.after for call in written)
    check(graph)


def test_expanded_result_is_not_overwritten(registry: Registry) -> None:
    graph = graph_of(
        registry, CONV, {"id": "w", "shapes/wide": {}}, {"id": "r", "sigmoid": {}}, CONV
    )
    assert "w.y" in aliases(graph).unsure
    assert "r.y" not in overwritten(graph)
    check(graph)


def test_value_that_may_share_a_storage_is_not_overwritten(registry: Registry) -> None:
    layers = [
        {"id": "c", **CONV},
        {"id": "f", "shapes/flat": {}},
        {"id": "a", "add": {}, "inputs": ["c", "f"]},
    ]
    graph = graph_of(registry, *layers, CONV)
    assert {"c.y", "f.rows"} <= aliases(graph).unsure
    assert "a.y" not in overwritten(graph)
    check(graph)


def check(graph: Graph) -> None:
    """The in-place graph means the same, is accepted, and gives the same numbers in less memory."""
    changed = in_place(graph)
    verify_rewrite(graph, changed)
    before, after = schedule(graph), schedule(changed)
    verify(changed, after)
    assert [s.call.name for s in after.steps] == [s.call.name for s in before.steps]
    assert all(b <= a for a, b in zip(before.memory(), after.memory(), strict=True))
    expected = run(before, "reference")
    found, eager = run(after, "reference"), run(after, "eager")
    for name, tensor in expected.items():
        assert torch.equal(found[name], eager[name]), name
        # In place, a result has its argument's strides: a later sum may run in another order.
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_random_models_compute_the_same_in_place(registry: Registry, seed: int) -> None:
    graph = step_graph(random_model(14, seed), registry)
    assert overwritten(graph)
    check(graph)


def test_reference_executor_finds_a_storage_that_is_really_shared(registry: Registry) -> None:
    """What meta tensors show as a copy is a view of real channels_last ones: said before it is lost."""
    layers = [
        {"id": "c", **CONV},
        {"id": "f", "shapes/flat": {}},
        {"id": "a", "add": {}, "inputs": ["c", "f"]},
    ]
    graph = graph_of(registry, *layers, CONV)
    call = graph.calls["a"]
    bold = replace(call, in_place=True, writes={"a.y": "c.y"}, after=("f",))
    values = {**graph.values, "a.y": replace(graph.values["a.y"], view_of="c.y")}
    plan = schedule(replace(graph, calls={**graph.calls, "a": bold}, values=values))
    given = tensors(plan)
    given["$input"] = given["$input"].contiguous(memory_format=torch.channels_last)
    given["c.weight"] = given["c.weight"].contiguous(memory_format=torch.channels_last)
    message = (
        r"node 'f' \(shapes/flat\): expected forward to return 'f.rows' in a storage of its own"
    )
    with pytest.raises(LayerError, match=message), torch.no_grad():
        prepare(plan, "reference")(*(given[name] for name in plan.arguments))


def test_method_that_does_not_write_in_place_is_found(registry: Registry) -> None:
    class Lying(Layer):
        """2 x."""

        overwrites: ClassVar[dict[str, str]] = {"y": "x"}

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

        def forward_(self, x: Tensor) -> Tensor:
            return 2 * x

        def backward(self, grad_y: Tensor) -> Tensor:
            return 2 * grad_y

    class Plugin:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("bad/lying", Lying)

    registry = load_registry(plugins=[Plugin()], entry_points=False)
    plan = schedule(in_place(graph_of(registry, CONV, {"id": "l", "bad/lying": {}})))
    given = tensors(plan)
    with pytest.raises(
        LayerError, match="forward_ must return 'l.y' in the storage of 'conv2d_1.y'"
    ):
        prepare(plan, "reference")(*(given[name] for name in plan.arguments))


def forward(self: Layer, x: Tensor) -> Tensor:
    return x


def backward(self: Layer, grad_y: Tensor) -> Tensor:
    return grad_y


@pytest.mark.parametrize(
    ("overwrites", "methods", "message"),
    [
        ({"z": "x"}, {}, "names 'z', which is no result of this layer"),
        (
            {"y": "w"},
            {"forward_": forward},
            "'y' cannot overwrite 'w', which forward does not take",
        ),
        ({"y": "x"}, {}, r"expected forward_\(x\), which writes y in place, found forward_\(\)"),
        ({"grad_x": "grad_y"}, {"backward_": forward}, r"expected backward_\(grad_y\)"),
        ({}, {"forward_": forward}, "defines forward_, but `overwrites` names nothing"),
    ],
)
def test_declaration_and_methods_must_fit(
    overwrites: dict[str, str], methods: dict[str, Any], message: str
) -> None:
    body = {"forward": forward, "backward": backward, **methods, "overwrites": overwrites}
    body["__annotations__"] = {"overwrites": ClassVar[dict[str, str]]}
    with pytest.raises(ContractError, match=message):
        type("Odd", (Layer,), body)

"""A wrong pass of a plugin is refused with an error that names the plugin, whatever it does wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.builtin import SGD
from graphnet.errors import InputError, PlanError, PluginError
from graphnet.graph import Call, Const, Graph, Kind
from graphnet.model import Model
from graphnet.passes import common_subexpressions, dead_code, placed
from graphnet.plan import Plan
from graphnet.sdk import (
    Constant,
    Layer,
    Pass,
    Register,
    Registry,
    Specs,
    StateSpec,
    hookimpl,
    load_registry,
)
from tests.support.models import Acme

Change = Callable[[Graph], Graph]
WRONG: dict[str, Change] = {}

NETWORK = {
    "input": {"channels": 4},
    "layers": [
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}, "id": "one"},
        {"relu": None, "id": "bent"},
        {"acme/dropout": {"p": 0.5}, "id": "drop"},
        {"acme/center": None, "id": "centred"},
        {"acme/damped": None, "id": "damped"},
        {"conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1}, "id": "two"},
        {"subtract": None, "inputs": ["two", "bent"], "id": "rest"},
        {"add": None, "inputs": ["rest", "rest"], "id": "twice"},
    ],
}


class Damped(Layer):
    """x / (1 + m) with a running mean m of |x|; its reverse pass reads a view of the state."""

    saves: ClassVar[tuple[str, ...]] = ("old",)
    updates: ClassVar[tuple[str, ...]] = ("mean",)

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        return {"mean": StateSpec((1,))}

    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x / (1 + mean), mean.view(1), 0.5 * (mean + x.abs().mean())

    def backward(self, grad_y: Tensor, old: Tensor) -> Tensor:
        return grad_y / (1 + old)


def wrong(change: Change) -> Change:
    """Register a pass that makes a wrong graph."""
    WRONG[change.__name__] = change
    return change


def with_calls(graph: Graph, *calls: Call) -> Graph:
    return replace(graph, calls={**graph.calls, **{call.name: call for call in calls}})


def without(graph: Graph, name: str) -> Graph:
    return replace(graph, calls={n: call for n, call in graph.calls.items() if n != name})


def first(graph: Graph, fits: Callable[[Call], bool]) -> Call:
    return next(call for call in graph.calls.values() if fits(call))


def update_of(graph: Graph, slot: str) -> Call:
    return first(graph, lambda call: slot in call.writes.values())


@wrong
def drops_a_call(graph: Graph) -> Graph:
    """relu becomes nothing: its readers read its input."""
    bent = graph.calls["bent"]
    calls = {
        name: replace(call, args=tuple("one.y" if arg == "bent.y" else arg for arg in call.args))
        for name, call in graph.calls.items()
        if call is not bent
    }
    return replace(graph, calls=calls)


@wrong
def swaps_arguments(graph: Graph) -> Graph:
    rest = graph.calls["rest"]
    return with_calls(graph, replace(rest, args=rest.args[::-1]))


@wrong
def changes_a_definition(graph: Graph) -> Graph:
    drop = graph.calls["drop"]
    return with_calls(graph, replace(drop, layer=replace(drop.layer, p=0.25)))  # type: ignore[type-var]


@wrong
def changes_a_constant(graph: Graph) -> Graph:
    call = first(graph, lambda call: any(isinstance(arg, Const) for arg in call.args))
    args = tuple(Const(("x",)) if isinstance(arg, Const) else arg for arg in call.args)
    return with_calls(graph, replace(call, args=args))


@wrong
def changes_a_method(graph: Graph) -> Graph:
    drop = graph.calls["drop"]
    return with_calls(graph, replace(drop, method="inference", args=drop.args[:1]))


@wrong
def removes_an_after(graph: Graph) -> Graph:
    """The state may be written before the reverse pass has read it."""
    return with_calls(graph, replace(update_of(graph, "damped.mean"), after=()))


@wrong
def adds_an_after_that_makes_a_cycle(graph: Graph) -> Graph:
    update = update_of(graph, "one.weight")
    return with_calls(graph, replace(graph.calls["one"], after=(update.name,)))


@wrong
def waits_for_no_call(graph: Graph) -> Graph:
    return with_calls(graph, replace(graph.calls["two"], after=("nothing",)))


@wrong
def aliases_a_value(graph: Graph) -> Graph:
    """relu's result is said to lie in its input's storage."""
    values = {**graph.values, "bent.y": replace(graph.values["bent.y"], view_of="one.y")}
    return replace(graph, values=values)


@wrong
def works_in_place_over_a_value_that_is_read_later(graph: Graph) -> Graph:
    rest = graph.calls["rest"]
    call = replace(rest, in_place=True, writes={"rest.y": "two.y"})
    values = {**graph.values, "rest.y": replace(graph.values["rest.y"], view_of="two.y")}
    return with_calls(replace(graph, values=values), call)


@wrong
def changes_a_dtype(graph: Graph) -> Graph:
    value = graph.values["bent.y"]
    narrow = replace(value, spec=replace(value.spec, dtype=torch.bfloat16))
    return replace(graph, values={**graph.values, "bent.y": narrow})


@wrong
def changes_a_shape(graph: Graph) -> Graph:
    value = graph.values["bent.y"]
    small = replace(value, spec=replace(value.spec, shape=(1, *value.spec.shape[1:])))
    return replace(graph, values={**graph.values, "bent.y": small})


@wrong
def changes_where_a_parameter_starts(graph: Graph) -> Graph:
    value = replace(graph.values["one.bias"], initializer=Constant(7.0))
    return replace(graph, values={**graph.values, "one.bias": value})


@wrong
def swaps_the_gradients_of_two_updates(graph: Graph) -> Graph:
    one, two = update_of(graph, "one.weight"), update_of(graph, "two.weight")
    of = graph.gradients["one.weight"], graph.gradients["two.weight"]
    swap = dict(zip(of, of[::-1], strict=True))

    def swapped(call: Call) -> Call:
        return replace(call, args=tuple(swap.get(str(arg), arg) for arg in call.args))

    return with_calls(graph, swapped(one), swapped(two))


@wrong
def updates_twice(graph: Graph) -> Graph:
    update = update_of(graph, "one.weight")
    names = {name: f"{name}:again" for name in update.writes}
    values = {again: replace(graph.values[name], name=again) for name, again in names.items()}
    again = replace(
        update,
        name="again",
        results=tuple(names.values()),
        writes={names[name]: slot for name, slot in update.writes.items()},
    )
    return with_calls(replace(graph, values={**graph.values, **values}), again)


@wrong
def updates_another_slot(graph: Graph) -> Graph:
    one, two = update_of(graph, "one.weight"), update_of(graph, "two.weight")
    slots = dict(zip(one.writes.values(), two.writes.values(), strict=True))
    call = replace(one, writes={name: slots[slot] for name, slot in one.writes.items()})
    return with_calls(graph, call)


@wrong
def drops_an_update(graph: Graph) -> Graph:
    return without(graph, update_of(graph, "two.bias").name)


@wrong
def drops_the_update_of_a_state(graph: Graph) -> Graph:
    return without(graph, update_of(graph, "centred.mean").name)


@wrong
def drops_an_output(graph: Graph) -> Graph:
    return replace(graph, outputs=graph.outputs[:-1])


@wrong
def returns_another_value(graph: Graph) -> Graph:
    return replace(graph, outputs=(*graph.outputs[:-1], graph.gradients["one.bias"]))


@wrong
def drops_a_target(graph: Graph) -> Graph:
    return replace(graph, targets=())


@wrong
def drops_a_gradient(graph: Graph) -> Graph:
    kept = {name: value for name, value in graph.gradients.items() if name != "two.weight"}
    return replace(graph, gradients=kept)


@wrong
def forgets_one_of_two_gradients_of_a_value(graph: Graph) -> Graph:
    """What accumulates the gradients of a value that is used twice gives the first of them on."""
    total = first(graph, lambda call: call.kind is Kind.ACCUMULATE)
    (result,), (kept, *_) = total.results, tuple(total.reads())
    calls = {
        name: replace(call, args=tuple(kept if arg == result else arg for arg in call.args))
        for name, call in graph.calls.items()
        if call is not total
    }
    return replace(graph, calls=calls)


@wrong
def draws_other_random_numbers_in_the_reverse_pass(graph: Graph) -> Graph:
    key = first(graph, lambda call: call.kind is Kind.KEY)
    (made,) = key.makes()
    other = replace(
        key,
        name="other",
        results=("other",),
        layer=replace(key.layer, constant=12345),  # type: ignore[type-var]
    )
    values = {**graph.values, "other": replace(graph.values[made], name="other")}
    back = first(graph, lambda call: call.backward_of == "drop")
    call = replace(back, args=tuple("other" if arg == made else arg for arg in back.args))
    calls = {"other": other, **graph.calls, call.name: call}
    return replace(graph, calls=calls, values=values)


@wrong
def reads_a_value_that_nothing_makes(graph: Graph) -> Graph:
    return without(graph, "centred")


@wrong
def puts_a_call_under_another_name(graph: Graph) -> Graph:
    return replace(graph, calls={("bend" if n == "bent" else n): c for n, c in graph.calls.items()})


@wrong
def returns_nothing(graph: Graph) -> Graph:
    return None  # type: ignore[return-value]


def with_pass(change: Change, **place: object) -> Registry:
    class Wrong:
        @hookimpl
        def graphnet_layers(self, register: Register) -> None:
            register("acme/damped", Damped)

        @hookimpl
        def graphnet_passes(self, register: Register) -> None:
            register("acme/wrong", Pass(change, **{"after": "dead_code", **place}))  # type: ignore[arg-type]

    return load_registry(plugins=[Acme(), Wrong()], entry_points=False)


def training_plan(registry: Registry, **options: Any) -> Plan:
    model = Model(NETWORK, registry=registry)
    rule = SGD(lr=0.1, momentum=0.9)
    return model.plan(
        (2, 4, 6, 6), loss="mse", optimizer=rule, kernels="reference", device="cpu", **options
    )


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_pass_is_refused_and_its_plugin_is_named(name: str) -> None:
    with pytest.raises(PlanError) as caught:
        training_plan(with_pass(WRONG[name]))
    start = "pass 'acme/wrong' of Wrong local makes a wrong graph: "
    assert str(caught.value).startswith(start)
    assert "Leave it out with without: [acme/wrong]" in str(caught.value)


def test_more_than_twenty_kinds_of_wrong_passes_are_planted() -> None:
    assert len(WRONG) >= 20


def test_each_wrong_pass_changes_the_graph() -> None:
    """So that none is refused only because of the way in which it is made."""
    found: list[Graph] = []

    def look(graph: Graph) -> Graph:
        found.append(graph)
        return graph

    training_plan(with_pass(look))
    assert all(change(found[0]) != found[0] for change in WRONG.values())


def test_a_right_pass_runs_at_its_place_and_is_switched_off_by_name() -> None:
    registry = with_pass(common_subexpressions, after="differentiate")
    changes = training_plan(registry).changes
    names = [change.name for change in changes]
    assert names.index("acme/wrong") == names.index("differentiate") + 1
    changes = training_plan(registry, without=["acme/wrong"]).changes
    assert [c.switched_off for c in changes if c.name == "acme/wrong"] == [True]
    names = [c.name for c in Model(NETWORK, registry=registry).plan((2, 4, 6, 6)).changes]
    assert "acme/wrong" not in names  # a prediction has no reverse pass
    with pytest.raises(InputError, match="unknown pass 'acme/wrnog'. Did you mean 'acme/wrong'"):
        training_plan(registry, without=["acme/wrnog"])


def test_a_new_state_that_no_update_has_written_yet_is_not_dead() -> None:
    """dead_code is right behind the updates, and wrong before them."""
    with pytest.raises(PlanError, match="acme/wrong.*the new state of 'centred.mean' is no longer"):
        training_plan(with_pass(dead_code, after="differentiate"))


def test_a_pass_that_fails_is_named_with_its_plugin() -> None:
    def fails(graph: Graph) -> Graph:
        raise KeyError("weight")

    with pytest.raises(
        PluginError, match="pass 'acme/wrong' of Wrong local failed: KeyError: 'weight'"
    ):
        training_plan(with_pass(fails))


def test_a_pass_after_no_pass_is_refused() -> None:
    with pytest.raises(PluginError, match="after 'dead_cod', which is no pass. Did you mean"):
        Pass(dead_code, after="dead_cod")
    with pytest.raises(PluginError, match="to run after 'acme/gone', which is no other pass"):
        training_plan(with_pass(dead_code, after="acme/gone"))


def test_passes_that_wait_for_each_other_are_refused() -> None:
    """Else none of them would ever run, without a word."""
    plugin = gn.sdk.Plugin("acme", "acme-passes", "1.0")
    after = {"acme/a": "acme/b", "acme/b": "acme/c", "acme/c": "acme/b", "acme/d": "dead_code"}
    entries = {
        name: gn.sdk.Entry(name, Pass(dead_code, after=one), 1, plugin)
        for name, one in after.items()
    }
    with pytest.raises(
        PluginError, match="'acme/a' of .* these wait for each other: acme/b, acme/c"
    ):
        placed([Pass(dead_code, name="dead_code")], entries)
    del entries["acme/b"]
    with pytest.raises(PluginError, match="'acme/a' of .* after 'acme/b', which is no other pass"):
        placed([Pass(dead_code, name="dead_code")], entries)


def test_a_needed_pass_of_a_plugin_cannot_be_switched_off() -> None:
    registry = with_pass(dead_code, needed=True)
    with pytest.raises(InputError, match="'acme/wrong' cannot be switched off"):
        training_plan(registry, without=["acme/wrong"])


def test_a_pass_of_our_own_comes_by_the_same_door() -> None:
    entry = gn.sdk.default_registry().passes["common_subexpressions"]
    assert entry.plugin.builtin
    assert entry.value.after == "dead_code"

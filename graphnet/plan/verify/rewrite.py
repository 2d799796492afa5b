"""Rewrite: compare the graphs before and after a pass that must not change what is computed."""

from __future__ import annotations

from collections.abc import Collection

from graphnet.errors import PlanError
from graphnet.graph import SLOTS, SOURCES, Graph, Kind, Value
from graphnet.plan.verify.value_numbering import ValueNumbers
from graphnet.plan.verify.waits import missing_waits
from graphnet.sdk import Layer


def verify_rewrite(before: Graph, after: Graph) -> None:
    """Raise PlanError unless the outputs and updates of both graphs are the same functions of the sources.

    The compiler calls it after each pass that must not change what is computed, such as recompute.
    """
    table = ValueNumbers()
    old, new = table.of(before), table.of(after)
    _ends(before, after)
    _sources(before, after)
    for was, now in zip(before.outputs, after.outputs, strict=True):
        if old[was] != new[now]:
            raise PlanError(f"plan rejected: the output {now!r} does not compute what {was!r} did")
        if before.values[was].spec != after.values[now].spec:
            raise PlanError(
                f"plan rejected: the output {now!r} is {after.values[now].spec}, and was "
                f"{before.values[was].spec}"
            )
    updates, others = _updates(before), _updates(after)
    for slot, written in updates.items():
        if slot not in others:
            raise PlanError(f"plan rejected: nothing updates {slot!r} any more")
        if [old[name] for name in written] != [new[name] for name in others[slot]]:
            raise PlanError(f"plan rejected: {slot!r} is no longer updated as it was")
    _new_states(before, after, updates, old, new)
    if added := others.keys() - updates.keys():
        raise PlanError(f"plan rejected: {min(added)!r} was not updated before")
    _gradients(before, after, old, new)
    if after is not before:
        known = missing_waits(before)
        for pair, words in missing_waits(after).items():
            if pair not in known:
                raise PlanError(f"plan rejected: {words}")


def _ends(before: Graph, after: Graph) -> None:
    ends = [
        (graph.inputs, graph.targets, graph.output_names, len(graph.outputs))
        for graph in (before, after)
    ]
    if ends[0] != ends[1]:
        raise PlanError("plan rejected: the graph has other inputs or outputs than before")


def _sources(before: Graph, after: Graph) -> None:
    """Check that inputs, parameters, states and constants are what they were."""
    ahead = {} if after.prelude is None else after.prelude.values
    for name, was in before.values.items():
        if was.kind not in SOURCES or was.kind is Kind.PRELUDE:
            continue
        now: Value | None = after.values.get(name, ahead.get(name))
        if now is None and was.kind not in SLOTS:
            continue  # a scalar or constant that nobody reads any more
        if now != was:
            gone = "is gone" if now is None else "is another one than before"
            raise PlanError(f"plan rejected: the {was.kind} {name!r} {gone}")


def _gradients(before: Graph, after: Graph, old: dict[str, int], new: dict[str, int]) -> None:
    if before.gradients.keys() != after.gradients.keys():
        raise PlanError("plan rejected: other parameters have a gradient than before")
    for parameter, was in before.gradients.items():
        if old[was] != new[after.gradients[parameter]]:
            raise PlanError(
                f"plan rejected: the gradient of {parameter!r} is no longer what it was"
            )


def _new_states(
    before: Graph,
    after: Graph,
    updated: Collection[str],
    old: dict[str, int],
    new: dict[str, int],
) -> None:
    """Check the new states of layers that no update has written yet: a later pass needs them."""
    made = _made_states(after)
    for slot, name in _made_states(before).items():
        if slot not in updated and (slot not in made or new[made[slot]] != old[name]):
            raise PlanError(f"plan rejected: the new state of {slot!r} is no longer what it was")


def _made_states(graph: Graph) -> dict[str, str]:
    """Slot -> the value that a layer makes as its new state."""
    found: dict[str, str] = {}
    for call in graph.calls.values():
        layer = call.layer
        if isinstance(layer, Layer) and call.method == "forward" and layer.updates:
            arguments = dict(zip(layer.signature.forward, call.args, strict=True))
            states = call.results[len(layer.outputs + layer.saves) :]
            for state, result in zip(layer.updates, states, strict=True):
                slot = arguments[state]
                if isinstance(slot, str) and isinstance(result, str):
                    found[slot] = result
    return found


def _updates(graph: Graph) -> dict[str, list[str]]:
    """Slot -> the values that are written into it."""
    found: dict[str, list[str]] = {}
    for call in graph.calls.values():
        for name, slot in call.writes.items():
            if graph.values[slot].kind in SLOTS:
                found.setdefault(slot, []).append(name)
    return found

"""Placed: puts the passes of plugins after the passes that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphnet.errors import PluginError, nearest
from graphnet.graph import Graph
from graphnet.sdk import PASSES, Entry, Pass


def placed(passes: Sequence[Pass[Graph]], entries: Mapping[str, Entry]) -> tuple[Pass[Graph], ...]:
    """The passes of a compilation with those of plugins among them.

    A pass runs after the pass that its `after` names, if this compilation has that pass; several passes after
    the same pass run in the order of registration. A pass is settled if the pass before it is.

    Args:
        passes: graphnet's own passes, in order.
        entries: the registered passes by name.

    Raises:
        PluginError: `after` names no pass, or passes of plugins wait for each other.
    """
    behind: dict[str, list[Pass[Graph]]] = {}
    for name, entry in entries.items():
        if fault := _fault(name, entries):
            raise PluginError(
                f"pass {name!r} of {entry.plugin.distribution} {entry.plugin.version} is to run after "
                f"{entry.value.after!r}, {fault} "
                f"GRAPHNET_DISABLE_PLUGINS={entry.plugin.distribution} switches its plugin off."
            )
        one = replace(entry.value, name=name, run=partial(_run, entry))
        behind.setdefault(entry.value.after, []).append(one)
    order: list[Pass[Graph]] = []

    def add(one: Pass[Graph]) -> None:
        order.append(one)
        for later in behind.get(one.name, ()):
            add(replace(later, settled=one.settled))

    for one in passes:
        add(one)
    return tuple(order)


def _fault(name: str, entries: Mapping[str, Entry]) -> str:
    """What is wrong with the place of a plugin's pass; empty if it is behind one of graphnet's own."""
    chain = [name]
    while (after := entries[chain[-1]].value.after) not in PASSES:
        if after not in entries or after == chain[-1]:
            return f"which is no other pass. {nearest(after, {*PASSES, *entries})}"
        if after in chain:
            return f"but these wait for each other: {', '.join(chain[chain.index(after) :])}."
        chain.append(after)
    return ""


def _run(entry: Entry, graph: Graph) -> Graph:
    """Run a plugin's pass; an error of its code names the plugin."""
    try:
        result: Graph = entry.value.run(graph)
    except Exception as error:
        raise PluginError(
            f"pass {entry.name!r} of {entry.plugin.distribution} {entry.plugin.version} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    return result

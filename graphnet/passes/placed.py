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
        PluginError: `after` names no pass.
    """
    behind: dict[str, list[Pass[Graph]]] = {}
    for name, entry in entries.items():
        known = {*PASSES, *entries}
        if entry.value.after not in known or entry.value.after == name:
            raise PluginError(
                f"pass {name!r} of {entry.plugin.distribution} {entry.plugin.version} is to run after "
                f"{entry.value.after!r}, which is no other pass. {nearest(entry.value.after, known)} "
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

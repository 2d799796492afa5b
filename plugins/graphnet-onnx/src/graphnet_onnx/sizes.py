"""Sizes: which sizes of a model's inputs are free, and which sizes of its values depend on them.

A size is free if the model's graph can be built for another one, with the same parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from graphnet.errors import GraphnetError, InputError, nearest
from graphnet.graph import SLOTS, Graph, Value
from graphnet.model import Model, open_sizes, resized
from graphnet.passes import inference

Shapes = Sequence[tuple[int, ...]]
Places = Sequence[tuple[int, int]]
"""Pairs of an input's number and an axis."""
ALL = "all"
"""In place of the names of sizes: all of them."""


@dataclass(frozen=True)
class Sizes:
    """The inference graph for some shapes, and the free sizes.

    Attributes:
        graph: the inference graph for the shapes that were given.
        slots: the forward graph's parameters and states, all of them, by name.
        free: the name of a free size -> the inputs and axes that have it.
        changed: the name of a free size -> the inference graph with another number for it.
    """

    graph: Graph
    slots: Mapping[str, Value]
    free: Mapping[str, Places]
    changed: Mapping[str, Graph]

    def depends(self, value: str) -> tuple[tuple[str, ...], ...]:
        """For each axis of a value, the names of the free sizes on which its size depends."""
        others = {name: graph.values[value].spec.shape for name, graph in self.changed.items()}
        return tuple(
            tuple(name for name, shape in others.items() if shape[axis] != size)
            for axis, size in enumerate(self.graph.values[value].spec.shape)
        )

    def shape(self, value: str) -> tuple[int | None, ...]:
        """The sizes of a value; None where they depend on a free size."""
        sizes = zip(self.graph.values[value].spec.shape, self.depends(value), strict=True)
        return tuple(None if names else size for size, names in sizes)

    def named_shape(self, value: str) -> tuple[int | str | None, ...]:
        """As `shape`, with the name of the free size where a size is equal to it."""
        own = self.graph.values[value].spec.shape
        inputs = [self.graph.values[name].spec.shape for name in self.graph.inputs]
        found: list[int | str | None] = list(self.shape(value))
        for axis, names in enumerate(self.depends(value)):
            if len(names) == 1:
                (name,) = names
                number, of_axis = self.free[name][0]
                changed = self.changed[name].values
                now = changed[self.graph.inputs[number]].spec.shape[of_axis]
                same = own[axis] == inputs[number][of_axis]
                if same and changed[value].spec.shape[axis] == now:
                    found[axis] = name
        return tuple(found)


def find_sizes(model: Model, shapes: Shapes, *, fixed: Collection[str]) -> Sizes:
    """Build the inference graph for these shapes, and find the free sizes.

    Args:
        model: the model.
        shapes: a shape for each input.
        fixed: the names of the sizes that are not free, or ALL.

    Raises:
        GraphError: the shapes do not fit the model.
        InputError: `fixed` has a name that no size has which could be free.
    """
    forward = model.graph(*shapes)
    slots = {name: forward.values[name] for name in forward.sources(*SLOTS)}
    free: dict[str, Places] = {}
    changed: dict[str, Graph] = {}
    candidates = open_sizes(list(model.description.inputs.values()), shapes)
    for name in fixed:
        if name not in (*candidates, ALL):
            raise InputError(
                f"{model.description.name}: fixed: the model has no open size {name!r}. "
                f"{nearest(name, [*candidates, ALL])}"
            )
    for name, places in candidates.items():
        if name in fixed or ALL in fixed:
            continue
        other = _other(model, shapes, places, slots)
        if other is not None:
            free[name], changed[name] = places, inference(other)
    return Sizes(inference(forward), slots, free, changed)


def _other(
    model: Model, shapes: Shapes, places: Places, slots: Mapping[str, Value]
) -> Graph | None:
    """The forward graph with twice or half the size at these places; None if the model takes neither."""
    number, axis = places[0]
    size = shapes[number][axis]
    for other in (2 * size, size // 2):
        if size % 2 and other < size:
            continue
        try:
            graph = model.graph(*resized(shapes, places, other))
        except GraphnetError:
            continue
        if slots == {name: graph.values[name] for name in graph.sources(*SLOTS)}:
            return graph
    return None

"""Standalone sizes: the plan of a network that is exported, its source, and the sizes for which both hold."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from graphnet.errors import GraphError
from graphnet.model.free_sizes import Places, open_sizes, resized
from graphnet.model.model import Model
from graphnet.model.origins import packages
from graphnet.plan import Plan, Standalone, standalone

OFF = ("fold_affine", "hoist_constants", "in_place", "block_layout")
"""Passes that compute ahead, write over values, or move pixels: the source is plainer without them."""
IMPORTS = (
    *(("hashlib", ""), ("json", ""), ("math", ""), ("torch", "")),
    *(("pathlib", "Path"), ("torch", "Tensor")),
)
"""What the code imports around the plan, as (module, name)."""


@dataclass(frozen=True)
class Network:
    """The plan, its source, and the free sizes.

    Attributes:
        plan: the plan for the shapes that were given.
        source: its source.
        names: the names of its outputs.
        free: the name of a free size -> its places in the inputs.
        others: the name of a free size -> the plans for other numbers.
        tried: the shapes on which the written code is run.
    """

    plan: Plan
    source: Standalone
    names: Sequence[str]
    free: Mapping[str, Places]
    others: Mapping[str, Sequence[Plan]]
    tried: Sequence[tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...]]]

    def axes(self, value: str) -> list[int | str]:
        """The sizes of a value: numbers, names of free sizes, or terms of these such as "2 height"."""
        own = self.plan.values[value].spec.shape
        found: list[int | str] = list(own)
        for name, (number, of_axis) in ((n, places[0]) for n, places in self.free.items()):
            at = self.plan.inputs[number]
            for axis, before in enumerate(own):
                seen = [
                    (one.values[at].spec.shape[of_axis], one.values[value].spec.shape[axis])
                    for one in self.others[name]
                ]
                if any(after != before for _, after in seen):
                    known = isinstance(found[axis], str)
                    size = self.plan.values[at].spec.shape[of_axis]
                    found[axis] = "any" if known else _term(name, (size, before), seen)
        return found

    def sizes(self, values: Sequence[str]) -> dict[str, str]:
        """Name of an input -> its sizes as text."""
        return {self.plan.values[value].label: _by(self.axes(value)) for value in values}

    def outputs(self) -> dict[str, str]:
        """Name of an output -> its sizes as text."""
        pairs = zip(self.names, self.plan.outputs, strict=True)
        return {name: _by(self.axes(value)) for name, value in pairs}


def _term(name: str, first: tuple[int, int], others: Sequence[tuple[int, int]]) -> str:
    """How a size follows from a free one, seen at several numbers of it, such as "height / 4"."""
    size, made = first
    if made and max(size, made) % min(size, made) == 0:
        times, parts = max(1, made // size), max(1, size // made)
        term = name if times == parts else f"{times} {name}" if parts == 1 else f"{name} / {parts}"
        if all(after * parts == other * times for other, after in others):
            return term
        if any(after * parts == other * times for other, after in others):
            return f"({term}, rounded)"
    if all(after - made == other - size for other, after in others):
        return f"({name} {'+' if made > size else '-'} {abs(made - size)})"
    return f"(depends on {name})"


def _by(axes: Sequence[int | str]) -> str:
    return " x ".join(map(str, axes)) or "scalar"


def find(model: Model, shapes: Sequence[tuple[int, ...]], kernels: str) -> Network:
    """The plan and its source, and the sizes for which the same source holds."""
    known = packages(model.registry)

    def plan(*sizes: tuple[int, ...]) -> Plan:
        return model.plan(*sizes, kernels=kernels, without=OFF)

    def source(of: Plan) -> Standalone:
        return standalone(of, packages=known, imports=IMPORTS)

    own = plan(*shapes)
    text = source(own)
    free: dict[str, Places] = {}
    others: dict[str, Sequence[Plan]] = {}
    inputs = list(model.description.inputs.values())
    for name, places in open_sizes(inputs, shapes).items():
        size = shapes[places[0][0]][places[0][1]]
        plans = []
        for other in (size + 1, 2 * size, size + 2):
            try:
                plans.append(plan(*resized(shapes, places, other)))
            except GraphError:
                continue
        if plans and all(_same(own, text, one, source(one)) for one in plans):
            free[name], others[name] = places, plans
    # the written code runs at the sizes given, and at another size of each free one
    dtypes = tuple(own.values[name].spec.dtype for name in own.inputs)
    tried = [
        tuple(one.values[name].spec.shape for name in one.inputs)
        for one in (own, *(plans[-1] for plans in others.values()))
    ]
    return Network(own, text, model.outputs, free, others, [(sizes, dtypes) for sizes in tried])


def _same(plan: Plan, text: Standalone, other: Plan, other_text: Standalone) -> bool:
    """Whether the source and the weights of two plans are the same; comments state sizes and do not count."""
    weights = [[one.values[name].spec for name in one.slots] for one in (plan, other)]
    steps = [ast.dump(ast.parse(one.step)) for one in (text, other_text)]
    return weights[0] == weights[1] and steps[0] == steps[1] and text.layers == other_text.layers

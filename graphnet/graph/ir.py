"""IR: a graph is a table of frozen calls and a table of values, each assigned once.

Forward, loss, backward, accumulate and update are all Calls: one method of one definition, applied to
named values. A pass takes a Graph and returns one. `Graph.network` shows the graph as a
networkx.MultiDiGraph: each source and each call is a node, and each use of a value is an edge, whose key is
the argument's position. It is made once and never changed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import networkx as nx
import torch

from graphnet.sdk import IN_PLACE, Definition, Initializer, Layer, Layout, Sharding, Spec


class Kind(StrEnum):
    """The kind of a value or call: where the value comes from, or what the call does."""

    INPUT = "input"
    PARAMETER = "parameter"
    FROZEN = "frozen"  # a parameter that the training leaves as it is
    STATE = "state"
    CONSTANT = "constant"  # a tensor filled with one number when the plan is set up
    SCALAR = "scalar"  # 0-dim device tensors that drive a step: learning rate, step count, seed
    PRELUDE = "prelude"  # computed from parameters and states by the graph's prelude
    LAYER = "layer"
    LOSS = "loss"
    KEY = "key"
    FOLD = "fold"  # computes parameters from parameters: affine_map and absorb
    BACKWARD = "backward"
    ACCUMULATE = "accumulate"
    COLLECTIVE = "collective"  # starts an exchange between processes
    WAIT = "wait"  # waits for the result of an exchange
    SCALE = "scale"  # between gradients and updates: factors, and gradients times a factor
    UPDATE = "update"


SOURCES = frozenset(
    {
        *(Kind.INPUT, Kind.PARAMETER, Kind.FROZEN, Kind.STATE),
        *(Kind.CONSTANT, Kind.SCALAR, Kind.PRELUDE),
    }
)
SLOTS = frozenset({Kind.PARAMETER, Kind.FROZEN, Kind.STATE})
SOON = frozenset(  # calls that run as early as they can
    {Kind.ACCUMULATE, Kind.COLLECTIVE, Kind.SCALE, Kind.UPDATE}
)
LR, STEP, SEED = "@lr", "@step", "@seed"  # no id in a description has an "@"
RANK = "@rank"  # the number of a process among those of a training
CAST = "@cast"  # the role of a slot that holds the cast of a parameter


@dataclass(frozen=True, slots=True)
class Const:
    """An argument with a fixed value: `specs`, `wanted`, or None for an absent parameter."""

    value: Any


Arg = str | tuple[str, ...] | Const
"""A value's name, the names for `*xs`, or a constant."""
Slot = str | None | tuple[str | None, ...]
"""A result: a value's name, None if nobody reads it, a tuple for the gradients of `*xs`."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in the graph: its name, its spec, and where it comes from.

    `kind` is one of SOURCES, or the kind of the call that makes the value. `view_of` names the value whose
    storage it shares, as observed on meta tensors. Sources that the plan sets up have an `initializer`;
    `memory_format` gives the strides in which they are stored. `layout` is None for the axes of the layers'
    definitions (N C H W for images), otherwise the blocks in which the pixels are stored; `spec` is always
    the shape in memory.

    The name is for people and files, and no code parses it. `node` is the node or call that the value
    belongs to, empty for a value of the whole step. `port` is its role there, such as "y" or "weight"; for
    an input that a loss reads, it is the loss's argument. `of` is the value that this one belongs to, such
    as the parameter of an average. `role` says what a slot of the training is for, in the word of the
    optimizer or the pass; the slot of a layer has no role. `sharding` says how the tensor is divided of
    which each process has a shard here.
    """

    name: str
    spec: Spec
    kind: Kind
    view_of: str | None = None
    initializer: Initializer | None = None
    memory_format: torch.memory_format | None = None
    layout: Layout | None = None
    node: str = ""
    port: str = ""
    of: str = ""
    role: str = ""
    sharding: Sharding | None = None

    @property
    def label(self) -> str:
        """The name for messages, without the mark in front, which no name of a node has."""
        return self.name.lstrip("$@")

    def sibling(self, suffix: str, kind: Kind, spec: Spec) -> Value:
        """A new value that belongs to this one; its name is this name and the suffix."""
        port = f"{self.port}{suffix}" if self.port else ""
        return Value(f"{self.name}{suffix}", spec, kind, node=self.node, port=port, of=self.name)


@dataclass(frozen=True, slots=True)
class Call:
    """One method of one definition applied to values.

    `results` are new values. `writes` maps a result to the value whose storage it overwrites: a slot, or an
    argument if the call works `in_place`. `after` names calls that must run earlier. `title` is the layer's
    name for people; `node` and `where` give the node of the description and its place in the file; `port`
    names the parameter or state of that node, if the call is for only one. `backward_of` names the forward
    call of a backward call; `repeats` names the call that a recomputed call runs again. `part` is the number
    of the micro-batch that the call computes, None for a call of the whole batch.
    """

    name: str
    kind: Kind
    layer: Definition
    method: str
    args: tuple[Arg, ...]
    results: tuple[Slot, ...]
    title: str
    node: str
    where: str = ""
    writes: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    repeats: str = ""
    backward_of: str = ""
    in_place: bool = False
    port: str = ""
    part: int | None = None

    @property
    def function(self) -> str:
        """The name of the function that runs: the method, or its in-place form."""
        return IN_PLACE[self.method] if self.in_place else self.method

    def reads(self) -> Iterator[str]:
        """The values that the call reads, once for each use, in the order of its arguments."""
        return flatten(self.args)

    def makes(self) -> Iterator[str]:
        """The values that the call makes."""
        return flatten(self.results)

    def pure(self) -> Call:
        """Return this call as one that overwrites no argument; an update is returned unchanged."""
        return replace(self, in_place=False, writes={}) if self.in_place else self

    def ports(self) -> dict[str, Arg]:
        """Name of an argument or result of a forward call -> the argument or result."""
        assert isinstance(self.layer, Layer)
        named: dict[str, Arg] = dict(zip(self.layer.signature.forward, self.args, strict=True))
        names = self.layer.outputs + self.layer.saves + self.layer.updates
        for name, result in zip(names, self.results, strict=True):
            if name not in named:  # the new value of a state has the name of the state's argument
                assert not isinstance(result, tuple)  # only backward returns gradients of *xs
                named[name] = Const(None) if result is None else result
        return named

    def new_states(self) -> dict[str, str]:
        """Name of a state -> its new value, for the states that this call of `forward` makes."""
        if self.method != "forward" or not isinstance(self.layer, Layer):
            return {}
        states = self.layer.updates
        results = self.results[len(self.results) - len(states) :]
        pairs = zip(states, results, strict=True)
        return {state: new for state, new in pairs if isinstance(new, str)}


def flatten(items: Iterable[Arg | Slot]) -> Iterator[str]:
    """The value names in arguments or results, in order."""
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, tuple):
            yield from (name for name in item if name is not None)


def renamed(arg: Arg, names: Mapping[str, str]) -> Arg:
    """The argument with the values in `names` replaced."""
    match arg:
        case str():
            return names.get(arg, arg)
        case tuple():
            return tuple(names.get(name, name) for name in arg)
        case Const():
            return arg


def spec_of(arg: Arg, values: Mapping[str, Value]) -> Any:
    """The Spec of an argument, a tuple of Specs for `*xs`, None for an absent parameter."""
    match arg:
        case str():
            return values[arg].spec
        case tuple():
            return tuple(values[name].spec for name in arg)
        case Const():
            return None


@dataclass(frozen=True, slots=True)
class Node:
    """A node of `Graph.network`: a source of values, or a call."""

    name: str
    kind: Kind
    value: Value | None = None
    call: Call | None = None


@dataclass(frozen=True)
class Graph:
    """Calls by name, in an order in which they can run; values by name; inputs and outputs.

    `gradients` maps a parameter to the value that holds its gradient, if the graph has a reverse pass.
    `partial_gradients` maps it to its gradients of each micro-batch, until they are added up.
    `prelude` is a graph that computes the values of Kind.PRELUDE from parameters and states, once for many
    runs.
    """

    calls: Mapping[str, Call]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...] = ("output",)
    targets: tuple[str, ...] = ()
    gradients: Mapping[str, str] = field(default_factory=dict)
    partial_gradients: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prelude: Graph | None = None

    def sources(self, *kinds: Kind) -> tuple[str, ...]:
        """The names of the values of these kinds, in the order of first use."""
        return tuple(name for name, value in self.values.items() if value.kind in kinds)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, in the order of first use."""
        return self.sources(Kind.PARAMETER)

    @functools.cached_property
    def producers(self) -> Mapping[str, Call]:
        """Value -> the call that makes it."""
        return {name: call for call in self.calls.values() for name in call.makes()}

    @functools.cached_property
    def readers(self) -> Mapping[str, tuple[str, ...]]:
        """Value -> the calls that read it; a call occurs once for each use."""
        found: dict[str, list[str]] = {}
        for call in self.calls.values():
            for name in call.reads():
                found.setdefault(name, []).append(call.name)
        return {name: tuple(calls) for name, calls in found.items()}

    def spec_of(self, arg: Arg) -> Any:
        """The Spec of an argument, a tuple of Specs for `*xs`, None for an absent parameter."""
        return spec_of(arg, self.values)

    @functools.cached_property
    def network(self) -> nx.MultiDiGraph[str]:
        """The graph as a networkx graph; the attribute "node" of each node is a `Node`."""
        network: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        for name, value in self.values.items():
            if value.kind in SOURCES:
                network.add_node(name, node=Node(name, value.kind, value=value))
        for name, call in self.calls.items():
            network.add_node(name, node=Node(name, call.kind, call=call))
        producers = self.producers
        for name, call in self.calls.items():
            for position, value_name in enumerate(call.reads()):
                maker = producers.get(value_name)
                source = maker.name if maker else value_name
                network.add_edge(source, name, key=position, value=value_name)
            for earlier in call.after:
                network.add_edge(earlier, name, key=f"after {earlier}")
        return network

    def order(self) -> tuple[Call, ...]:
        """The calls in topological order; kinds in SOON run as early as they can, the others as made."""
        rank = {
            name: (0 if call.kind in SOON else 1, position)
            for position, (name, call) in enumerate(self.calls.items())
        }
        order = nx.lexicographical_topological_sort(
            self.network, key=lambda name: rank.get(name, (-1, 0))
        )
        return tuple(self.calls[name] for name in order if name in self.calls)

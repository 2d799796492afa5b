"""Graph: frozen calls in single assignment, a table of values, and the networkx view of both.

Forward, loss, backward, accumulate and update are all Calls: one method of one definition, applied to
named values. A pass takes a Graph and returns one. `Graph.network` is the networkx.MultiDiGraph of the
same thing, with a typed, frozen node for each input, parameter, state and call, and one edge for each
use, keyed by the argument's position; it is derived once and never edited.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import networkx as nx
import torch

from graphnet.sdk import IN_PLACE, Definition, Initializer, Layer, Layout, Spec


class Kind(StrEnum):
    """What a node of the graph is: where a value comes from, or what a call is for."""

    INPUT = "input"
    PARAMETER = "parameter"
    STATE = "state"
    CONSTANT = "constant"  # a tensor filled with one number when the plan is set up
    SCALAR = "scalar"  # 0-dim device tensors that drive a step: learning rate, step count, seed
    PRELUDE = "prelude"  # computed ahead from parameters and states, by the graph's prelude
    LAYER = "layer"
    LOSS = "loss"
    KEY = "key"
    FOLD = "fold"  # makes parameters of other parameters: affine_map and absorb
    BACKWARD = "backward"
    ACCUMULATE = "accumulate"
    SCALE = "scale"  # between gradients and updates: what these are scaled by, and gradients scaled
    UPDATE = "update"


SOURCES = frozenset(
    {Kind.INPUT, Kind.PARAMETER, Kind.STATE, Kind.CONSTANT, Kind.SCALAR, Kind.PRELUDE}
)
SLOTS = frozenset({Kind.PARAMETER, Kind.STATE})
SOON = frozenset({Kind.ACCUMULATE, Kind.SCALE, Kind.UPDATE})  # calls that run as early as they can
LR, STEP, SEED = "@lr", "@step", "@seed"  # no id in a description has an "@"


@dataclass(frozen=True, slots=True)
class Const:
    """An argument that is fixed when the plan is made: specs, wanted, an absent parameter (None)."""

    value: Any


Arg = str | tuple[str, ...] | Const
"""A value's name, the names behind `*xs`, or a constant."""
Slot = str | None | tuple[str | None, ...]
"""Where a result goes: a value's name, None for a result nobody reads, a tuple for those of `*xs`."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in the graph: its name, spec, and where it comes from.

    `kind` is one of SOURCES, or that of the call which makes it. `view_of` names the value whose
    storage it shares, as observed on meta tensors. Sources that the plan sets up have an
    `initializer`; `memory_format` is the strides that they are best stored with. `layout` is None for
    the axes that the layers' definitions speak of (N C H W for images), else the stack of blocks in
    which the pixels lie; `spec` is always the shape in memory.

    The name is for people and files, and nobody takes it apart: `node` is the node or call among whose
    results and slots the value is, empty for what drives the whole step, and `port` what it is there:
    "y", "weight". An input that a loss takes has the loss's argument for its port. `of` is the value that
    this one goes with, such as the parameter of an average. `role` says what a slot that the training
    adds is for, in the word of the optimizer or the pass; a slot that belongs to a layer has none.
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

    @property
    def label(self) -> str:
        """The name for messages: without the mark in front that no node's name begins with."""
        return self.name.lstrip("$@")

    def sibling(self, suffix: str, kind: Kind, spec: Spec) -> Value:
        """A new value that goes with this one, called by its name and the suffix."""
        port = f"{self.port}{suffix}" if self.port else ""
        return Value(f"{self.name}{suffix}", spec, kind, node=self.node, port=port, of=self.name)


@dataclass(frozen=True, slots=True)
class Call:
    """One method of one definition applied to values.

    `results` are new values, `writes` maps a result to the value whose storage it overwrites (a slot,
    or an argument, where the call works `in_place`), `after` names calls that must have run before it.
    `title` is the layer's name as people know it; `node` and `where` say which node of the description
    it belongs to, and `port` what of that node it is about, if it is about one parameter or state.
    `backward_of` names the forward call that a backward call belongs to, `repeats` the call whose results
    a recomputed one makes once more.
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

    @property
    def function(self) -> str:
        """The name of the layer's function that runs: the method, or its twin that works in place."""
        return IN_PLACE[self.method] if self.in_place else self.method

    def reads(self) -> Iterator[str]:
        """The values it reads, once for each use, in the order of its arguments."""
        return flatten(self.args)

    def makes(self) -> Iterator[str]:
        """The values it makes."""
        return flatten(self.results)

    def pure(self) -> Call:
        """The same call by the function that writes over no argument; an update stays as it is."""
        return replace(self, in_place=False, writes={}) if self.in_place else self

    def ports(self) -> dict[str, Arg]:
        """Argument and result names of a forward call -> what stands there."""
        assert isinstance(self.layer, Layer)
        named: dict[str, Arg] = dict(zip(self.layer.signature.forward, self.args, strict=True))
        names = self.layer.outputs + self.layer.saves + self.layer.updates
        for name, result in zip(names, self.results, strict=True):
            if name not in named:  # the new value of a state keeps out of the state's way
                assert not isinstance(result, tuple)  # only backward returns gradients of *xs
                named[name] = Const(None) if result is None else result
        return named


def flatten(items: Iterable[Arg | Slot]) -> Iterator[str]:
    """The value names in arguments or results, in order."""
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, tuple):
            yield from (name for name in item if name is not None)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of `Graph.network`: a source of values, or a call."""

    name: str
    kind: Kind
    value: Value | None = None
    call: Call | None = None


@dataclass(frozen=True)
class Graph:
    """Calls by name, in an order in which they can run; values by name; what goes in and out.

    `gradients` maps a parameter to the value that holds its gradient, once there is a reverse pass.
    `refused` are pairs of a call and a kernel that was measured there and is not the fastest. `prelude`
    computes the values of that kind, its outputs, from parameters and states: once for many runs.
    """

    calls: Mapping[str, Call]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...] = ("output",)
    targets: tuple[str, ...] = ()
    gradients: Mapping[str, str] = field(default_factory=dict)
    refused: frozenset[tuple[str, str]] = frozenset()
    prelude: Graph | None = None

    def sources(self, *kinds: Kind) -> tuple[str, ...]:
        """The names of the values of these kinds, in the order they were first used."""
        return tuple(name for name, value in self.values.items() if value.kind in kinds)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameter nodes, in the order of first use: the order in which optimizers walk them."""
        return self.sources(Kind.PARAMETER)

    @functools.cached_property
    def producers(self) -> Mapping[str, Call]:
        """Value -> the call that makes it."""
        return {name: call for call in self.calls.values() for name in call.makes()}

    @functools.cached_property
    def readers(self) -> Mapping[str, tuple[str, ...]]:
        """Value -> the calls that read it, each once for each use."""
        found: dict[str, list[str]] = {}
        for call in self.calls.values():
            for name in call.reads():
                found.setdefault(name, []).append(call.name)
        return {name: tuple(calls) for name, calls in found.items()}

    def spec_of(self, arg: Arg) -> Any:
        """The Spec behind an argument, a tuple of them for `*xs`, None for an absent parameter."""
        match arg:
            case str():
                return self.values[arg].spec
            case tuple():
                return tuple(self.values[name].spec for name in arg)
            case Const():
                return None

    @functools.cached_property
    def network(self) -> nx.MultiDiGraph[str]:
        """The graph as networkx sees it; each node carries a `Node` under the key "node"."""
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
        """The calls in topological order: updates and sums as soon as they can run, else as made."""
        rank = {
            name: (0 if call.kind in SOON else 1, position)
            for position, (name, call) in enumerate(self.calls.items())
        }
        order = nx.lexicographical_topological_sort(
            self.network, key=lambda name: rank.get(name, (-1, 0))
        )
        return tuple(self.calls[name] for name in order if name in self.calls)

"""Flat: an expanded model, as a list of nodes without blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from graphnet.description.inputs import InputDescription
from graphnet.sdk import Layer


@dataclass(frozen=True, slots=True)
class Reference:
    """A result of a node: its first output if `output` is None. `node` is "$name" for a model input."""

    node: str
    output: str | None = None


@dataclass(frozen=True, slots=True)
class FlatNode:
    """One layer of the expanded model; `share` is the id whose parameters it uses (often its own)."""

    id: str
    layer: Layer
    layer_name: str
    inputs: tuple[Reference, ...]
    share: str
    where: str


@dataclass(frozen=True, slots=True)
class Expanded:
    """An unrolled model: its nodes in topological order, its inputs, and its outputs by name."""

    name: str
    inputs: Mapping[str, InputDescription]
    nodes: tuple[FlatNode, ...]
    outputs: Mapping[str, Reference]


class CycleError(Exception):
    """Nodes read each other's results in a circle; `ids` are their ids, each read by the next one."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(" -> ".join(ids))
        self.ids = tuple(ids)


def topological(nodes: Sequence[FlatNode]) -> tuple[FlatNode, ...]:
    """Sort nodes so that each comes after its inputs; nodes that already do keep their order.

    Raises CycleError if there is no such order.
    """
    position = {node.id: i for i, node in enumerate(nodes)}
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    graph.add_nodes_from(position)
    graph.add_edges_from(
        (ref.node, node.id) for node in nodes for ref in node.inputs if ref.node in position
    )
    try:
        order = list(nx.lexicographical_topological_sort(graph, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        raise CycleError([edge[0] for edge in nx.find_cycle(graph)]) from None
    return tuple(nodes[position[name]] for name in order)

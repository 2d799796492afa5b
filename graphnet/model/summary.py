"""Summary: the nodes of a model with their shapes, parameters and operations, for inputs of some shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphnet.description import Expanded
from graphnet.graph import Graph, Kind, call_cost
from graphnet.sdk import Registry, by, changed_fields
from graphnet.system import html_table, short_count

_HEAD = ("node", "layer", "output", "parameters", "FLOPs")


@dataclass(frozen=True, slots=True)
class Row:
    """One node of a summary.

    Attributes:
        node, layer: the id of the node and the name of its layer.
        output: the shape of its first output.
        parameters: the numbers that it trains; a node that shares them with an earlier node has 0.
        flops: the floating-point operations of its forward, a multiply-add counted as 2.
    """

    node: str
    layer: str
    output: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """The nodes of a model in the order in which they run; `str` and notebooks show a table.

    Attributes:
        name: the model's name.
        inputs: the shape of each input.
        rows: the nodes.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...]]
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """The numbers that a training changes."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> int:
        """The floating-point operations of one forward."""
        return sum(row.flops for row in self.rows)

    def __str__(self) -> str:
        rows = [_HEAD, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self._total()])

    def _repr_html_(self) -> str:
        return html_table(_HEAD, self._cells(), self._total())

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.node,
                row.layer,
                by(row.output),
                f"{row.parameters:,}" if row.parameters else "-",
                short_count(row.flops),
            )
            for row in self.rows
        ]

    def _total(self) -> str:
        shapes = ", ".join(f"{name} {by(s)}" for name, s in self.inputs.items())
        return (
            f"{self.name}: {len(self.rows)} nodes, {self.parameters:,} parameters, "
            f"{short_count(self.flops)} FLOPs for {shapes}"
        )


def summarize(
    network: Expanded, graph: Graph, shapes: Sequence[Sequence[int]], registry: Registry
) -> Summary:
    """Summarize a network; `graph` is its forward graph for inputs of these shapes."""
    owners: set[str] = set()
    rows = []
    for name, call in graph.calls.items():
        if call.kind is not Kind.LAYER:
            continue
        mine = [v for v in call.reads() if graph.values[v].kind is Kind.PARAMETER]
        fresh = [value for value in dict.fromkeys(mine) if value not in owners]
        owners.update(fresh)
        rows.append(
            Row(
                node=name,
                layer=registry.name_of(call.layer),
                output=graph.values[str(call.results[0])].spec.shape,
                parameters=sum(graph.values[value].spec.numel for value in fresh),
                flops=call_cost(call, graph.values).flops,
            )
        )
    inputs = {name: tuple(shape) for name, shape in zip(network.inputs, shapes, strict=True)}
    return Summary(network.name, inputs, tuple(rows))


def nodes_table(network: Expanded, registry: Registry) -> str:
    """Show the nodes of a network as an HTML table: layer, fields that are not at their defaults, inputs."""
    rows = []
    for node in network.nodes:
        changed = changed_fields(node.layer).items()
        fields = ", ".join(f"{name}: {value}" for name, value in changed)
        reads = ", ".join(reference.node for reference in node.inputs)
        rows.append((node.id, registry.name_of(node.layer), fields, reads))
    return html_table(
        ("node", "layer", "fields", "reads"), rows, f"{network.name}: {len(rows)} nodes"
    )

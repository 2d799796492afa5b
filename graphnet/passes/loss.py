"""Loss: add the losses of a training to the outputs of a forward graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphnet.description import LossTerm
from graphnet.errors import GraphError, nearest
from graphnet.graph import Graph, GraphBuilder, Kind, Value
from graphnet.sdk import Accumulate, Loss, Spec, WeightedSum


def attach_loss(graph: Graph, losses: Mapping[str, Sequence[LossTerm]]) -> Graph:
    """Add losses to the named outputs; the graph's only output is then their weighted sum, 0-dim.

    The target of each output becomes a new input. A further argument of a loss, such as a mask, becomes an
    input of the same shape with the argument's name.

    Raises:
        GraphError: the graph has no output of this name.
    """
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    builder = GraphBuilder(dtype=graph.values[graph.outputs[0]].spec.dtype, graph=graph)
    targets: list[str] = []
    totals: list[str] = []
    weights = [term.weight for terms in losses.values() for term in terms]
    single = weights == [1.0]
    for name, terms in losses.items():
        if name not in outputs:
            raise GraphError(
                f"the model has no output {name!r} to put a loss on. {nearest(name, outputs)}"
            )
        prediction = builder.values[outputs[name]]
        suffix = "" if len(losses) == 1 else f".{name}"
        alone = single or (len(losses) > 1 and len(terms) == 1)
        for term in terms:
            node = f"@loss{suffix}" if alone else builder.unique(f"@loss{suffix}.{term.title}")
            given = []
            for argument in _given_to(term.loss, prediction.spec):
                value = Value(f"@{argument}{suffix}", prediction.spec, Kind.INPUT, port=argument)
                builder.values.setdefault(value.name, value)
                given.append(value.name)
            targets += [target for target in given if target not in targets]
            inputs = [prediction.name, *given]
            totals += builder.call(node, term.loss, term.title, inputs, kind=Kind.LOSS, owner=node)
    if not single:
        whole = Accumulate() if set(weights) == {1.0} else WeightedSum(weights=tuple(weights))
        totals = builder.call("@loss", whole, "sum", totals, kind=Kind.LOSS, owner="@loss")
    return replace(
        graph,
        calls=builder.calls,
        values=builder.values,
        outputs=(totals[0],),
        output_names=("loss",),
        targets=tuple(targets),
    )


def _given_to(loss: Loss, prediction: Spec) -> list[str]:
    """The arguments of a loss without the prediction: "target", then further inputs by their names."""
    names = loss.signature.tensors
    specs = dict.fromkeys(names, prediction)
    slots = {*loss.parameters(specs), *loss.states(specs)}
    return ["target", *(name for name in names[2:] if name not in slots)]

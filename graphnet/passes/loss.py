"""Loss: add the losses of a training to the outputs of a forward graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphnet.description import LossTerm
from graphnet.errors import GraphError, blame, nearest
from graphnet.graph import Graph, GraphBuilder, Kind, Value
from graphnet.passes.rewrite import dtype_of_value
from graphnet.sdk import Accumulate, Loss, LossWeight, Spec, WeightedSum


def attach_loss(
    graph: Graph, losses: Mapping[str, Sequence[LossTerm]], *, in_parts: bool = False
) -> Graph:
    """Add losses to the named outputs; the graph's only output is then their weighted sum, 0-dim.

    The target of each output becomes a new input. A further argument of a loss, such as a mask, becomes an
    input with the argument's name. Their specs are those that the loss states. With `in_parts`, the graph is
    that of a part of a batch, and has the weight of the part in each loss that defines `weight`.

    Raises:
        GraphError: the graph has no output of this name, or two losses of one output take different targets.
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
            for argument, spec in target_specs(term, prediction.spec).items():
                value = Value(f"@{argument}{suffix}", spec, Kind.INPUT, port=argument)
                known = builder.values.setdefault(value.name, value).spec
                if known != spec:
                    raise GraphError(
                        f"the loss {term.title!r} takes a {argument} {spec}, but another loss of the same "
                        f"output takes {known}; a sum of losses needs one {argument}"
                    )
                given.append(value.name)
            targets += [target for target in given if target not in targets]
            inputs = [prediction.name, *given]
            made = builder.call(node, term.loss, term.title, inputs, kind=Kind.LOSS, owner=node)
            totals += made
            if in_parts and type(term.loss).weight is not Loss.weight:
                dtype = dtype_of_value(builder.values[made[0]])
                layer = LossWeight(loss=term.loss, dtype=dtype)
                name = weight_of(node)
                builder.call(name, layer, "weight", given, kind=Kind.LAYER, owner=node)
                builder.calls[name] = replace(builder.calls[name], node=node)
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


def weight_of(node: str) -> str:
    """The name of the call that computes the weight of a loss, given the loss's node."""
    return f"{node}:weight"


def target_specs(term: LossTerm, prediction: Spec) -> dict[str, Spec]:
    """The specs of what a loss takes beside the prediction: the target, then further inputs by their names.

    Raises:
        GraphError: the loss takes no such prediction; the message names the loss.
    """
    loss = term.loss
    names = loss.signature.tensors
    specs = dict.fromkeys(names, prediction)
    slots = {*loss.parameters(specs), *loss.states(specs)}
    given = ["target", *(name for name in names[2:] if name not in slots)]
    with blame(f"the loss {term.title!r}: ", "target_spec"):
        return {name: loss.target_spec(prediction, name) for name in given}

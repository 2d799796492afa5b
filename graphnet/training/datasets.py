"""Datasets: load the data sets of a training file, and check that they fit their use."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from graphnet.description import LossTerm
from graphnet.errors import DataError
from graphnet.model import Model
from graphnet.passes import target_specs
from graphnet.sdk import DataSet, Gallery, Pairs, Shape, Stream
from graphnet.training.samples import Samples, load


def to_train_on(dataset: DataSet) -> Pairs | Stream:
    """Load a data set for training. Raises DataError if it holds whole images."""
    loaded = load(dataset)
    if isinstance(loaded, Gallery):
        raise DataError(
            f"{type(dataset).__name__} holds whole images to measure on, of any sizes; give "
            f"data.train a data set that makes pairs of one size"
        )
    return loaded


def to_measure_on(dataset: DataSet, trained: Shape) -> Pairs | Gallery:
    """Load a data set for metrics.

    Raises DataError if it changes, or has other axes or channels than `trained`, the shape of one input that
    the network is trained on.
    """
    loaded = load(dataset)
    if isinstance(loaded, Samples):
        loaded = loaded.in_memory()
    if isinstance(loaded, Stream):
        raise DataError(
            f"{type(dataset).__name__} makes other pairs in each epoch; give data.validation a data "
            f"set that stays the same"
        )
    found = loaded.input_shape if isinstance(loaded, Pairs) else tuple(loaded[0][0].shape)
    if len(found) != len(trained):
        raise DataError(
            f"the network is trained on inputs of the shape {trained}, but those of the validation set have "
            f"the shape {found}"
        )
    if len(found) == 3 and found[0] != trained[0]:
        raise DataError(
            f"the network is trained on inputs of {trained[0]} channels, but those of the validation set "
            f"have {found[0]}"
        )
    return loaded


def check_sizes(
    model: Model, validation: Pairs, *, loss: LossTerm, weights: Mapping[str, Tensor]
) -> None:
    """Raise DataError unless the trained network can be measured on a validation set.

    Args:
        model: the network.
        validation: its targets have the shape that the loss takes for the outputs.
        loss: the loss of the training.
        weights: the weights of the training; the inputs need weights of the same shapes.
    """
    graph = model.graph((1, *validation.input_shape))
    for name in graph.parameters:
        needed, found = graph.values[name].spec.shape, tuple(weights[name].shape)
        if needed != found:
            raise DataError(
                f"the validation set's inputs {validation.input_shape} need a weight {name!r} of the shape "
                f"{needed}, but it has the shape {found} for the inputs of the training"
            )
    output = graph.values[graph.outputs[0]].spec
    made, found = output.shape[1:], tuple(validation.targets.shape[1:])
    taken = target_specs(loss, output)["target"].shape[1:]
    if taken != found:
        so = "" if taken == made else f", for which {loss.title!r} takes targets {taken}"
        raise DataError(
            f"the network makes {made} of the validation set's {validation.input_shape}{so}, but its targets "
            f"are {found}. Give inputs of a size that the network keeps, or leave metrics out."
        )

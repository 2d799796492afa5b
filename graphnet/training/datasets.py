"""Datasets: load the data sets of a training file, and check that they fit their use."""

from __future__ import annotations

from graphnet.errors import DataError
from graphnet.model import Model
from graphnet.sdk import DataSet, Gallery, Pairs, Stream


def to_train_on(dataset: DataSet) -> Pairs | Stream:
    """Load a data set for training. Raises DataError if it holds whole images."""
    loaded = dataset.load()
    if isinstance(loaded, Gallery):
        raise DataError(
            f"{type(dataset).__name__} holds whole images to measure on, of any sizes; give "
            f"data.train a data set that makes pairs of one size"
        )
    return loaded


def to_measure_on(dataset: DataSet, channels: int) -> Pairs | Gallery:
    """Load a data set for metrics. Raises DataError if it changes, or has another number of channels."""
    loaded = dataset.load()
    if isinstance(loaded, Stream):
        raise DataError(
            f"{type(dataset).__name__} makes other pairs in each epoch; give data.validation a data "
            f"set that stays the same"
        )
    first = loaded.inputs[0] if isinstance(loaded, Pairs) else loaded[0][0]
    if len(first) != channels:
        raise DataError(
            f"the network is trained on inputs of {channels} channels, but those of the validation set "
            f"have {len(first)}"
        )
    return loaded


def check_sizes(model: Model, validation: Pairs) -> None:
    """Raise DataError unless the network's outputs have the shape of the validation targets."""
    graph = model.graph((1, *validation.input_shape))
    made, found = graph.values[graph.outputs[0]].spec.shape[1:], tuple(validation.targets.shape[1:])
    if made != found:
        raise DataError(
            f"the network makes {made} of the validation set's {validation.input_shape}, but its targets "
            f"are {found}. Give images of a size that the network keeps, or leave metrics out."
        )

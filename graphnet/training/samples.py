"""Samples: a torch Dataset, which a data set's `load` returned, as pairs for a training file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from graphnet.errors import DataError, blame
from graphnet.sdk import DataSet, Gallery, Pairs, Shape, Stream


class Samples(Stream):
    """The samples (input, target) of a map-style torch Dataset, which are read while steps run.

    Args:
        dataset: tensors, numpy arrays or numbers; inputs have one shape, and so have targets.
        name: the data set that returned it, for messages.

    Raises:
        DataError: it is iterable, is empty, or its first sample is no pair.
    """

    def __init__(self, dataset: Dataset[Any], name: str) -> None:
        self.dataset = dataset
        self.title = f"{name}, {type(dataset).__name__}"
        where = f"the data, {self.title}: "
        if isinstance(dataset, IterableDataset):
            raise DataError(
                f"{where}expected a map-style torch Dataset, found an iterable one. gn.train takes it, from "
                f"Python."
            )
        with blame(where, "len"):
            self._count = len(dataset)  # type: ignore[arg-type]
        if self._count == 0:
            raise DataError(f"{where}the data set is empty; give it at least one sample")
        with blame(where, "sample 0"):
            first, target = self.pair(0)
        self._shapes = tuple(first.shape), tuple(target.shape)

    def __len__(self) -> int:
        return self._count

    @property
    def input_shape(self) -> Shape:
        return self._shapes[0]

    @property
    def target_shapes(self) -> Mapping[str, Shape]:
        return {"target": self._shapes[1]}

    @property
    def resumed(self) -> str:
        """Say what is the same in a resumed training, and what is not, for the log."""
        return (
            f"data.train is a torch Dataset ({self.title}): its samples have the order of the run that was "
            f"interrupted. Random numbers that it draws are others; a change of its contents is not noticed."
        )

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """The input and the target of a sample."""
        sample = self.dataset[index]
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            found = f"{len(sample)} items" if isinstance(sample, (tuple, list)) else type(sample)
            raise DataError(f"sample {index}: expected a pair (input, target), found {found}")
        return torch.as_tensor(sample[0]), torch.as_tensor(sample[1])

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        return self._stacked(indices)

    def in_memory(self) -> Pairs:
        """Read all samples into memory."""
        with blame(f"the data, {self.title}: ", "reading"):
            return Pairs(*self._stacked(range(len(self))))

    def _stacked(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        inputs, targets = zip(*map(self.pair, indices), strict=True)
        return torch.stack(inputs), torch.stack(targets)


def load(dataset: DataSet) -> Pairs | Stream | Gallery:
    """Load a data set; a torch Dataset becomes Samples.

    Raises:
        DataError: it cannot be loaded, or `load` returned something else.
    """
    loaded = dataset.load()
    name = type(dataset).__name__
    if isinstance(loaded, Dataset):
        return Samples(loaded, name)
    if not isinstance(loaded, (Pairs, Stream, Gallery)):
        raise DataError(
            f"{name}.load must return Pairs, a Stream, a Gallery or a torch Dataset, found a "
            f"{type(loaded).__name__}"
        )
    return loaded


def title_of(data: Pairs | Stream | Gallery) -> str:
    """The name of loaded data, for messages."""
    return data.title if isinstance(data, Samples) else type(data).__name__

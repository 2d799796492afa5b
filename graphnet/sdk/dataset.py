"""What a data set is: pairs in memory, pairs made on the fly, or whole images to measure on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graphnet.errors import ContractError, DataError
from graphnet.sdk.definition import Definition

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A data set in memory: `inputs` and `targets`, both (N, C, H, W), uint8 or floating point.

    uint8 stands for 0..1 in 255 steps. Raises DataError when the two do not fit each other.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(
                f"{len(self.inputs)} inputs but {len(self.targets)} targets; give one for each"
            )
        if len(self.inputs) == 0:
            raise DataError("the data set is empty; give it at least one pair")

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def input_shape(self) -> Shape:
        return tuple(self.inputs.shape[1:])

    @property
    def target_shapes(self) -> Mapping[str, Shape]:
        return {"target": tuple(self.targets.shape[1:])}


class Stream(ABC):
    """Pairs made when they are asked for, in a thread of their own while training steps run.

    A pair is a function of (seed, epoch, index) alone: it does not depend on the batch that it is in,
    nor on what was made before, so that a resumed run sees the same pairs.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The pairs of an epoch."""

    @property
    @abstractmethod
    def input_shape(self) -> Shape:
        """What the model takes, without the batch: (C, H, W)."""

    @property
    @abstractmethod
    def target_shapes(self) -> Mapping[str, Shape]:
        """What the loss takes beside the prediction, by its arguments' names: {"target": (C, H, W)}."""

    @abstractmethod
    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """The pairs of these indices, on the CPU: inputs (N, C, H, W), then targets in their order.

        Floating point, or uint8, which stands for 0..1 in 255 steps.
        Several threads may call it at once. It should not use torch's own threads, which the steps
        need: numpy computes in the thread that calls it.
        """

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Tensor], progress: float
    ) -> tuple[Tensor, ...]:
        """The batch that the step trains on, by what `batch` returned, which is now on the device.

        Called right before the step: `predict` is the model as it is, `progress` the part of the run
        that is done, from 0 to 1. Without it the batch is taken as it is.
        """
        return batch


class Gallery(ABC):
    """Pairs of whole images of any sizes, to measure a model on; each is made when it is asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """An input and its target, both (C, H, W), uint8 or floating point; the same at each call."""


class DataSet(Definition):
    """Where pairs come from; annotated fields are its configuration, `path` the one a bare string sets."""

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether this data set can read what lies at `path`; the first registered that can, does."""
        return False

    def load(self) -> Pairs | Stream | Gallery:
        """Read or make the pairs. Raises DataError, which names the file, when that fails."""
        raise ContractError(f"{type(self).__name__} defines no load()")


def as_unit(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Images of a data set, uint8 or floating point, or a mask of bools, as 0..1 in `dtype`.

    Raises DataError for other dtypes, whose largest value is not known.

    >>> as_unit(torch.tensor([0, 51, 255], dtype=torch.uint8), torch.float32).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    if tensor.dtype == torch.uint8:
        return tensor.to(dtype).div_(255.0)
    if tensor.dtype != torch.bool and not tensor.is_floating_point():
        raise DataError(
            f"a data set holds uint8, which stands for 0..1 in 255 steps, or floating point; found "
            f"{tensor.dtype}. Divide by the largest value that it can have."
        )
    return tensor.to(dtype)

"""Data sets: pairs in memory, pairs that are made while training runs, or whole images for measuring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from graphnet.errors import ContractError, DataError
from graphnet.sdk.definition import Definition
from graphnet.sdk.spec import dtype_name

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A data set in memory.

    Attributes:
        inputs: the inputs (N, ...), such as images (N, C, H, W), tokens (N, T) or class labels (N,). If the
            model takes floating point, they are floating point, or uint8, which stands for 0..1 in 255 steps.
            If it takes integers, they are integers of any dtype.
        targets: the targets (N, ...), of the same dtypes, as the loss takes them.

    Raises:
        DataError: the numbers of inputs and targets differ, or there is no pair.

    >>> pairs = Pairs(inputs=torch.zeros(4, 3, 8, 8), targets=torch.zeros(4, 1, 8, 8))
    >>> pairs.input_shape, pairs.target_shapes
    ((3, 8, 8), {'target': (1, 8, 8)})
    >>> len(pairs)
    4
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
        """The shape of one input, such as (C, H, W)."""
        return tuple(self.inputs.shape[1:])

    @property
    def target_shapes(self) -> Mapping[str, Shape]:
        """The shape of one target, by the name of the loss's argument."""
        return {"target": tuple(self.targets.shape[1:])}


class Stream(ABC):
    """Pairs that are made batch by batch, in a thread of their own, while training steps run.

    A pair is a function of (seed, epoch, index) alone. It depends neither on the batch that it is in nor
    on pairs that were made before, so that a resumed run sees the same pairs.

    >>> class Noise(Stream):
    ...     input_shape = (3, 8, 8)
    ...     target_shapes = {"target": (3, 8, 8)}
    ...
    ...     def __len__(self):
    ...         return 100
    ...
    ...     def batch(self, seed, epoch, indices):
    ...         draws = [torch.Generator().manual_seed(hash((seed, epoch, i))) for i in indices]
    ...         images = torch.stack([torch.rand(3, 8, 8, generator=draw) for draw in draws])
    ...         return images, images
    >>> noisy, target = Noise().batch(seed=0, epoch=0, indices=[4, 7])
    >>> noisy.shape
    torch.Size([2, 3, 8, 8])
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of pairs in an epoch."""

    @property
    @abstractmethod
    def input_shape(self) -> Shape:
        """The shape of one input: (C, H, W)."""

    @property
    @abstractmethod
    def target_shapes(self) -> Mapping[str, Shape]:
        """The shape of one sample of each tensor that the loss takes besides the prediction, by its name.

        {"target": (C, H, W)} for most losses on images, {"target": ()} for one class label.
        """

    @abstractmethod
    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Make some of an epoch's pairs, on the CPU.

        Several threads may call it at once. It should not use torch's own threads, which the steps need:
        numpy computes in the thread that calls it.

        Args:
            seed: the run's seed.
            epoch: the epoch, from 0.
            indices: which pairs, each from 0 to len(self) - 1.

        Returns:
            The inputs (N, ...), then the targets in the order of `target_shapes`, in the dtypes that Pairs
            may have.
        """

    def source(self) -> Iterable[Tensor | NDArray[Any]]:
        """Yield the arrays from which pairs are made, such as all images of a folder.

        A checkpoint holds a digest of them, so that a run is not resumed with changed data. Without this
        method, only some of the pairs are compared.

        >>> class Crops(Stream):
        ...     images = [torch.zeros(3, 40, 60), torch.ones(3, 50, 50)]
        ...
        ...     def source(self):
        ...         return self.images
        >>> [image.shape for image in Crops.source(Crops)]
        [torch.Size([3, 40, 60]), torch.Size([3, 50, 50])]
        """
        return ()

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Tensor], progress: float
    ) -> tuple[Tensor, ...]:
        """Change a batch right before the step that trains on it; without it the batch stays as it is.

        Args:
            batch: what `batch` returned, now on the device.
            predict: the model with its present weights.
            progress: the part of the run that is done, from 0 to 1.

        >>> class Mixed(Stream):
        ...     def finish(self, batch, predict, progress):  # targets come closer to the predictions
        ...         inputs, targets = batch
        ...         return inputs, torch.lerp(targets, predict(inputs), 0.1 * progress)
        >>> batch = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
        >>> Mixed.finish(None, batch, torch.exp, progress=0.5)[1].mean()
        tensor(0.0500)
        """
        return batch


class Gallery(ABC):
    """Pairs of whole images of any sizes, on which a model is measured; each pair is made when it is needed.

    >>> class Flat(Gallery):
    ...     def __len__(self):
    ...         return 2
    ...
    ...     def __getitem__(self, index):
    ...         image = torch.full((3, 8 + index, 8), 0.5)
    ...         return image, image
    >>> noisy, target = Flat()[1]
    >>> noisy.shape
    torch.Size([3, 9, 8])
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """An input and its target, both (C, H, W), uint8 or floating point, the same at each call."""


class DataSet(Definition):
    """Where pairs come from; a subclass defines `load`.

    A training file may give a path alone. The first registered data set that claims this path then reads it,
    with the path in its field `path`.

    >>> class Tensors(DataSet):
    ...     path: str
    ...
    ...     @classmethod
    ...     def claims(cls, path):
    ...         return path.suffix == ".pt"
    >>> Tensors.claims(Path("pairs.pt"))
    True
    >>> class Noise(DataSet):
    ...     count: int = 8
    ...
    ...     def load(self):
    ...         return Pairs(torch.rand(self.count, 3, 8, 8), torch.rand(self.count, 3, 8, 8))
    >>> len(Noise(count=2).load())
    2
    """

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether this data set can read the file or folder at a path."""
        return False

    def load(self) -> Pairs | Stream | Gallery | Dataset[Any]:
        """Read or make the pairs.

        A map-style torch Dataset of pairs (input, target) is read while steps run; as validation data it is
        read into memory. If it draws random numbers, a resumed training draws others, and says so.

        Raises:
            DataError: the data cannot be read or made; the message names the file.
        """
        raise ContractError(f"{type(self).__name__} defines no load()")


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert data to the dtype that a model or a loss takes: floating point as by `as_unit`, or integers.

    Raises:
        DataError: the data is of another kind, or its dtype has values that the integer dtype cannot hold.

    >>> converted(torch.tensor([7], dtype=torch.uint8), torch.int64)
    tensor([7])
    """
    if dtype.is_floating_point:
        return as_unit(tensor, dtype)
    if tensor.dtype != dtype and not torch.can_cast(tensor.dtype, dtype):
        raise DataError(
            f"expected {dtype_name(dtype)}, or a dtype whose values it holds, found "
            f"{dtype_name(tensor.dtype)} in the data set"
        )
    return tensor.to(dtype)


def as_unit(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert images (uint8 or floating point) or a mask (bool) to 0..1 in a floating dtype.

    Raises:
        DataError: the images have another dtype, whose largest value is not known.

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

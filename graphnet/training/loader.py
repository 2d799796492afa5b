"""Loader: turns a torch DataLoader, a Dataset or another iterable into batches for a program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from graphnet.errors import DataError, GraphnetError, blame, nearest
from graphnet.graph import Value
from graphnet.model import Program, plain_spec
from graphnet.sdk import converted, dtype_name
from graphnet.training.batches import arranged, prefers_channels_last

Data = Iterable[Any] | Dataset[Any]
"""A DataLoader or another iterable of batches, or a Dataset of samples."""
T = TypeVar("T")
_ABSENT: Any = object()
_MOST = 16  # programs for batches of other sizes, of which the oldest is dropped


@dataclass(frozen=True, slots=True)
class Batch:
    """The tensors of a batch: inputs and targets in the order of `Program.step`, on the program's device.

    `title` names the data set and `name` the batch, for messages.
    """

    title: str
    name: str
    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.tensors[0])

    @property
    def where(self) -> str:
        """The place for messages, with a colon."""
        return f"{self.title}: {self.name}: "

    def converted(self, values: Sequence[Value]) -> list[Tensor]:
        """The tensors in the dtypes of these inputs and targets, converted as all data sets are.

        Raises DataError if values are of a kind that the program does not take.
        """
        found: list[Tensor] = []
        for tensor, value in zip(self.tensors, values, strict=True):
            with blame(f"{self.where}{value.label}: ", "convert"):
                found.append(converted(tensor, value.spec.dtype))
        return found


class Loader:
    """The batches of an epoch, from data that the user's code yields.

    `waited_s` is the time in seconds for which the training has waited for batches so far.

    Args:
        data: a DataLoader or another iterable of batches, or a Dataset of samples.
        program: the program that takes the batches.
        name: what the data is, for messages.
        shuffle: whether the samples of a Dataset are shuffled; an iterable decides itself.
        steps: the number of batches in an epoch, which then continues where the last one ended; None for all.

    Raises:
        DataError: the data is something else, or says that it has no batch.
    """

    def __init__(
        self,
        data: Data,
        program: Program,
        *,
        name: str,
        shuffle: bool = False,
        steps: int | None = None,
    ) -> None:
        self.values = [program.plan.values[one] for one in program.plan.inputs]
        self.device = program.device
        self.steps = steps
        self.waited_s = 0.0
        dataset = data.dataset if isinstance(data, DataLoader) else data
        self.title = f"{name}, {type(dataset).__name__}"
        self._running: Iterator[Any] | None = None  # a pass over the data that has not ended
        self.source = self._source(data, self.values[0].spec.shape[0], shuffle)
        if self.length == 0:
            raise DataError(self._empty("it has"))

    def _source(self, data: Data, batch_size: int, shuffle: bool) -> Iterable[Any]:
        if isinstance(data, IterableDataset):
            return DataLoader(data, batch_size=batch_size)
        if isinstance(data, Dataset):
            return self._asked("DataLoader", partial(DataLoader, data, batch_size, shuffle=shuffle))
        if isinstance(data, (Tensor, str, bytes, Mapping)) or not isinstance(data, Iterable):
            raise DataError(
                f"{self.title}: expected a torch DataLoader, a torch Dataset, or another iterable of "
                f"batches. Of tensors, make DataLoader(TensorDataset(inputs, targets), batch_size=...)."
            )
        return data

    @property
    def length(self) -> int | None:
        """The number of batches of an epoch; None if the data does not say it."""
        if self.steps is not None:
            return self.steps
        try:
            return len(self.source)  # type: ignore[arg-type]
        except TypeError:  # also DataLoader has a `__len__`, which needs that of its data set
            return None

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; the first epoch is 1.

        Raises:
            DataError: the data has no batch, its own code fails, or a batch does not fit the program.
        """
        if self.steps is None:
            self._running = None
        count = 0
        while self.steps is None or count < self.steps:
            fresh = self._running is None
            started = time.perf_counter()
            if self._running is None:
                self._running = self._asked("iteration", partial(iter, self.source))
            running = self._running
            name = f"batch {count + 1} of epoch {number}"
            found = self._asked(name, partial(next, running, _ABSENT))
            self.waited_s += time.perf_counter() - started
            if found is not _ABSENT:
                count += 1
                tensors = self._in_order(found, f"{self.title}: {name}: ")
                yield Batch(self.title, name, tuple(map(self._moved, tensors)))
                continue
            if fresh:
                raise DataError(self._empty(f"it yields in epoch {number}"))
            self._running = None
            if self.steps is None:
                return

    def _empty(self, what: str) -> str:
        return (
            f"{self.title}: expected one batch or more, but {what} none. A DataLoader with drop_last=True "
            f"needs a whole batch of samples. A generator yields its batches once: give an iterable that can "
            f"begin anew. Training data without an end needs steps_per_epoch."
        )

    def _asked(self, what: str, call: Callable[[], T]) -> T:
        """Call the user's code. Its error becomes the cause of ours, so that Python prints both."""
        try:
            return call()
        except Exception as error:
            raise DataError(f"{self.title}: {what} failed: {_last_line(error)}") from error

    def _in_order(self, batch: object, where: str) -> list[Tensor]:
        """The tensors of a batch, in the order of the program's inputs and targets."""
        names = [value.label for value in self.values]
        found: dict[str, Any] = {}
        for name, leaf in _leaves(batch):
            free = [one for one in names if one not in found]
            if name is None and not free:
                count = sum(1 for _ in _leaves(batch))
                raise DataError(f"{where}expected {_counted(names)}, found {count}")
            if name in found:
                raise DataError(f"{where}expected one tensor for {name!r}, found several")
            if name is not None and name not in free:
                raise DataError(f"{where}the program takes no {name!r}. {nearest(name, names)}")
            found[free[0] if name is None else name] = leaf
        missing = [one for one in names if one not in found]
        if missing:
            hint = f"; {', '.join(missing)}: nothing" if found else ""
            raise DataError(f"{where}expected {_counted(names)}, found {len(found)}{hint}")
        return [_tensor(found[name], f"{where}{name}: ") for name in names]

    def _moved(self, tensor: Tensor) -> Tensor:
        # From pinned memory, the copy to the GPU runs at the same time as the steps there.
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")


class Fitted:
    """Brings batches into the shape, dtype and layout of a program, and knows the programs for their sizes.

    Args:
        program: takes batches of one size; `with_shapes` makes those for other sizes.
    """

    def __init__(self, program: Program) -> None:
        values = [program.plan.values[name] for name in program.plan.inputs]
        self._inputs = [plain_spec(value).shape[1:] for value in values if not value.port]
        self._programs = {values[0].spec.shape[0]: program}

    def program(self, batch: Batch) -> Program:
        """The program for batches of this size; the inputs have its shapes.

        Raises:
            DataError: an input has another shape or another number of samples than the first.
            GraphnetError: there is no program for so few samples; the message names the batch.
        """
        count = len(batch)
        first = next(iter(self._programs.values()))
        for tensor, name, shape in zip(
            batch.tensors, first.plan.inputs, self._inputs, strict=False
        ):
            _check_shape(batch, tensor, first.plan.values[name], (count, *shape))
        if count not in self._programs:
            with blame(batch.where, "compile"):
                made = first.with_shapes(*((count, *shape) for shape in self._inputs))
            if len(self._programs) > _MOST:
                self._programs.pop(list(self._programs)[1])
            self._programs[count] = made
        return self._programs[count]

    def packed(self, batch: Batch, program: Program) -> tuple[Tensor, ...]:
        """The tensors for `Program.step_packed`.

        Raises:
            DataError: a tensor has a shape, or values of a kind, that the program does not take.
        """
        values = [program.plan.values[name] for name in program.plan.inputs]
        for tensor, value in zip(batch.tensors, values, strict=True):
            _check_shape(batch, tensor, value, plain_spec(value).shape)
        last = prefers_channels_last(values)
        tensors = zip(batch.converted(values), values, strict=True)
        return tuple(arranged(tensor, value, channels_last=last) for tensor, value in tensors)


def _check_shape(batch: Batch, tensor: Tensor, value: Value, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) == shape:
        return
    advice = (
        "It is what the loss takes for this batch."
        if value.port
        else "Compile for the shape that the data has. For several, call program.with_shapes and step."
    )
    raise DataError(
        f"{batch.where}{value.label}: expected {_sizes(shape)}, found {_sizes(tensor.shape)} "
        f"{dtype_name(tensor.dtype)}. {advice}"
    )


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _leaves(batch: object, name: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Yield each tensor of a nested batch in order, with its name if it is in a mapping."""
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _leaves(value, str(key))
    elif isinstance(batch, (tuple, list)):
        for item in batch:
            yield from _leaves(item, name)
    else:
        yield name, batch


def _tensor(leaf: object, where: str) -> Tensor:
    try:  # numpy's arrays too, without an import of numpy
        tensor = leaf if isinstance(leaf, Tensor) else torch.as_tensor(leaf)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where}expected a tensor or a numpy array, found a {type(leaf).__name__} ({error})"
        ) from error
    if tensor.ndim == 0 or len(tensor) == 0:
        raise DataError(f"{where}expected a batch of samples, found {_sizes(tensor.shape)}")
    return tensor


def _counted(names: list[str]) -> str:
    return f"{len(names)} tensors ({', '.join(names)})"


def _last_line(error: Exception) -> str:
    """The error in a line. From a worker of a DataLoader, its text holds a traceback: take its last line."""
    if isinstance(error, GraphnetError):
        return str(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    if "Original Traceback" in str(error):
        return lines[-1]
    return f"{type(error).__name__}: {error}" if lines else type(error).__name__

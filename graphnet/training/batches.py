"""Batches: the batch of each training step, selected from tensors in memory or prefetched by threads.

The samples of a batch depend on (seed, step) alone, so a resumed run sees the same batches as a run that was
not interrupted. Several processes take equal parts of that batch, in the order of their numbers.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphnet.errors import DataError, blame
from graphnet.graph import Value
from graphnet.model import SINGLE, Joined
from graphnet.plan import Plan
from graphnet.sdk import Layout, Pairs, Stream, converted, pack
from graphnet.training.samples import title_of

_MAX_THREADS = 8  # with more threads, their Python code delays the steps


def steps_per_epoch(count: int, batch_size: int, every: int) -> int:
    """Return the steps of an epoch over `count` samples: full batches, and full updates of `every` steps.

    >>> steps_per_epoch(100, 16, 4)  # 6 full batches, of which 4 make an update
    4
    """
    return count // (batch_size * every) * every


def prefers_channels_last(values: Iterable[Value]) -> bool:
    """Whether a plan with these inputs and targets reads images in channels_last strides.

    The target follows the prediction's strides, and those follow the input's.
    """
    return any(value.memory_format == torch.channels_last for value in values)


class BatchSource(ABC):
    """Gives the batch of each step, in the shape, dtype and layout of the plan's inputs.

    An epoch leaves out the last samples that do not fill a batch, and the last batches that do not fill an
    update. `waited_s` is the time in seconds for which steps have waited for their batches so far.

    Attributes:
        in_memory: whether all data is in memory, so that `given` costs nothing and does not depend on the
            steps before.

    Args:
        count: the number of samples.
        plan: its inputs are the input and the targets of a batch.
        seed: the seed of the order of the samples.
        every: the number of batches for one update.
        processes: those that share each batch; the plan is one of this process's part.
    """

    in_memory: ClassVar[bool] = False

    def __init__(
        self, count: int, plan: Plan, *, seed: int, every: int = 1, processes: Joined = SINGLE
    ) -> None:
        self.values = [plan.values[name] for name in plan.inputs]
        spec = self.values[0].spec
        self.device = spec.device
        self.batch_size = spec.shape[0] * processes.count  # of all processes together
        self._part = processes.part(self.batch_size)
        self.channels_last = prefers_channels_last(self.values)
        self.count = count
        self.steps_per_epoch = steps_per_epoch(count, self.batch_size, every)
        self.seed = seed
        self.waited_s = 0.0
        self._order = (-1, torch.empty(0))  # the latest epoch and its order

    @abstractmethod
    def given(self, step: int) -> tuple[Tensor, ...]:
        """Return the tensors from which `made` makes the batch of this step; the first step is 0."""

    def made(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Make a batch from the tensors of `given`. `Program.step_made` takes both."""
        return given

    def samples(self, step: int) -> tuple[int, Tensor]:
        """Return the epoch of a step, and the indices of this process's samples, int64 (N,)."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self.order(epoch))
        return epoch, self._order[1][number * self.batch_size :][self._part]

    def order(self, epoch: int) -> Tensor:
        """Return the order of an epoch's samples: a permutation drawn from (seed, epoch), int64 (count,)."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.count, generator=generator)


class MemoryBatches(BatchSource):
    """Selects batches from pairs in memory, which are brought into the plan's layout once."""

    in_memory = True

    def __init__(
        self, pairs: Pairs, plan: Plan, *, seed: int, every: int = 1, processes: Joined = SINGLE
    ) -> None:
        super().__init__(len(pairs), plan, seed=seed, every=every, processes=processes)
        for tensor, value in zip((pairs.inputs, pairs.targets), self.values, strict=True):
            with blame(f"the data: {value.label}: ", "convert"):
                converted(tensor[:1], value.spec.dtype)
        self.tensors = [
            PackedTensor(
                tensor,
                device=self.device,
                dtype=value.spec.dtype,
                layout=value.layout,
                channels_last=self.channels_last,
            )
            for tensor, value in zip((pairs.inputs, pairs.targets), self.values, strict=True)
        ]

    def given(self, step: int) -> tuple[Tensor, ...]:
        _, index = self.samples(step)
        return (index,)

    def made(self, *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.take(*given) for tensor in self.tensors)

    def order(self, epoch: int) -> Tensor:
        return super().order(epoch).to(self.device)


class PrefetchedBatches(BatchSource):
    """Prefetches the batches of a stream: threads make them while earlier steps run.

    Args:
        stream: makes the batches.
        plan: its inputs are the input and the targets of a batch.
        seed: the seed of the samples.
        steps: the number of steps of the run.
        predict: the model with its current weights, for streams whose batches depend on predictions.
        every: the number of batches for one update.
        processes: those that share each batch.

    Raises:
        DataError: a batch has other shapes than the stream states.
        LayerError: the stream's own code failed; the message names the stream.
    """

    def __init__(
        self,
        stream: Stream,
        plan: Plan,
        *,
        seed: int,
        steps: int,
        predict: Callable[[Tensor], Any],
        every: int = 1,
        processes: Joined = SINGLE,
    ) -> None:
        super().__init__(len(stream), plan, seed=seed, every=every, processes=processes)
        self.stream = stream
        self.steps = steps
        self.predict = predict
        self._blame = f"the data, {title_of(stream)}: "
        # On a CPU the steps need all cores, so only one thread makes batches.
        threads = 1 if self.device.type == "cpu" else min(_MAX_THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="graphnet-data")
        self._prefetched = threads + 1
        self._copy_stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._copy_stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._next_step = 0  # the step of the first pending batch
        self._pending: deque[Future[tuple[Tensor, ...]]] = deque()

    def given(self, step: int) -> tuple[Tensor, ...]:
        if step != self._next_step:  # a resumed run starts here, or steps are run a second time
            self._pending.clear()
            self._next_step = step
        self._submit()
        started = time.perf_counter()
        made = self._pending.popleft().result()
        self.waited_s += time.perf_counter() - started
        self._next_step += 1
        self._submit()
        with blame(self._blame, "finish"):
            on_device = tuple(map(self._to_device, made))
            batch = self.stream.finish(on_device, self.predict, step / self.steps)
        return self._packed(batch)

    def _submit(self) -> None:
        """Let the threads make the batches of the next steps."""
        for step in range(self._next_step + len(self._pending), self._next_step + self._prefetched):
            if step < self.steps:
                epoch, index = self.samples(step)
                self._pending.append(self._threads.submit(self._make, epoch, index.tolist()))

    def _make(self, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        with blame(self._blame, "batch"):
            made = self.stream.batch(self.seed, epoch, indices)
        # A copy from pinned memory to the device can run at the same time as the steps.
        return tuple(t.pin_memory() for t in made) if self.device.type == "cuda" else made

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device; a copy to CUDA runs at the same time as the steps there.

        What `batch` makes need not be what `finish` returns, so this only knows the plan's floating dtype.
        """
        floating = (v.spec.dtype for v in self.values if v.spec.dtype.is_floating_point)
        dtype = next(floating, tensor.dtype) if tensor.is_floating_point() else tensor.dtype
        if self._copy_stream is None:
            return tensor.to(self.device, dtype)
        with torch.cuda.stream(self._copy_stream):
            copy = tensor.to(self.device, dtype, non_blocking=True)
        steps = torch.cuda.current_stream(self.device)
        steps.wait_stream(self._copy_stream)
        copy.record_stream(steps)  # the next copy may not reuse its memory while steps read it
        return copy

    def _packed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes = [tuple(tensor.shape[1:]) for tensor in batch]
        expected = [self.stream.input_shape, *self.stream.target_shapes.values()]
        if shapes != expected:
            raise DataError(
                f"{self._blame}expected batches of {expected}, the shapes that it states, got {shapes}"
            )
        return tuple(map(self._convert, batch, self.values))

    def _convert(self, tensor: Tensor, value: Value) -> Tensor:
        with blame(f"{self._blame}{value.label}: ", "convert"):
            return arranged(tensor, value, channels_last=self.channels_last)


def arranged(tensor: Tensor, value: Value, *, channels_last: bool) -> Tensor:
    """Bring a tensor of a batch into the dtype and layout of the plan's input; uint8 images into 0..1."""
    tensor = converted(tensor, value.spec.dtype)
    if value.layout is not None:
        return pack(tensor, value.layout).contiguous()
    last = channels_last and tensor.ndim == 4
    return tensor.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class PackedTensor:
    """A data set in memory, in the layout or strides of the plan's input, from which batches are selected.

    The data keeps its dtype; batches are made from it as `converted` says.

    Args:
        tensor: all samples, (N, ...).
        device: where the data set is stored.
        dtype: the dtype of the batches.
        layout: the blocks of pixels that the plan reads; None for N C H W.
        channels_last: whether the plan prefers images in channels_last strides.
    """

    def __init__(
        self,
        tensor: Tensor,
        *,
        device: torch.device,
        dtype: torch.dtype,
        layout: Layout | None,
        channels_last: bool,
    ) -> None:
        if layout is not None:
            tensor = pack(tensor, layout)
        self.channels_last = channels_last and layout is None and tensor.ndim == 4
        if self.channels_last:
            tensor = tensor.permute(0, 2, 3, 1)  # N H W C
        self.tensor = tensor.contiguous().to(device)
        self.dtype = dtype

    def take(self, index: Tensor) -> Tensor:
        """Return the batch of the samples at these indices, int64 (batch_size,)."""
        batch = self.tensor.index_select(0, index)
        if self.channels_last:
            batch = batch.permute(0, 3, 1, 2)
        return converted(batch, self.dtype)

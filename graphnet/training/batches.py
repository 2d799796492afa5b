"""Feed: the batch of each step, cut from tensors in memory or made ahead while steps run.

Which samples make which batch is a function of (seed, step) alone, so a run resumed at any step goes on
as if it had not stopped.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import DataError, blame
from graphnet.graph import Value
from graphnet.plan import Plan
from graphnet.sdk import Layout, Pairs, Stream, as_unit, pack

_MOST_THREADS = 8  # beyond it, what is left of Python in a batch holds up the steps


def steps_per_epoch(count: int, batch_size: int, every: int) -> int:
    """The steps of an epoch over `count` samples, as far as they make whole updates of `every` steps."""
    return count // (batch_size * every) * every


class BatchSource(ABC):
    """The batch of each step, as the plan's inputs want it. An incomplete last one of an epoch is left out.

    Where an update takes the batches of `every` steps, so is what does not make a whole one.
    `waited_s` is the time that steps have waited for their batch so far.
    """

    def __init__(self, count: int, plan: Plan, *, seed: int, every: int = 1) -> None:
        self.values = [plan.values[name] for name in plan.inputs]
        spec = self.values[0].spec
        self.batch_size, self.dtype, self.device = spec.shape[0], spec.dtype, spec.device
        # The target follows the prediction's strides, and those follow the input's.
        self.channels_last = any(v.memory_format == torch.channels_last for v in self.values)
        self.count = count
        self.steps_per_epoch = steps_per_epoch(count, self.batch_size, every)
        self.seed = seed
        self.waited_s = 0.0
        self._order = (-1, torch.empty(0))  # of the last epoch that was asked for

    @abstractmethod
    def given(self, step: int) -> tuple[Tensor, ...]:
        """What `made` makes the batch of this step of, the first one of a run being 0."""

    def made(self, *given: Tensor) -> tuple[Tensor, ...]:
        """A batch, as a function of these tensors; both are what `Program.step_made` takes."""
        return given

    def samples(self, step: int) -> tuple[int, Tensor]:
        """The epoch that a step belongs to, and the samples that it trains on."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self.order(epoch))
        return epoch, self._order[1][place * self.batch_size :][: self.batch_size]

    def order(self, epoch: int) -> Tensor:
        """The samples of an epoch in order: a permutation drawn from (seed, epoch)."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.count, generator=generator)


class MemoryBatches(BatchSource):
    """Batches cut from pairs in memory, which are packed once."""

    def __init__(self, pairs: Pairs, plan: Plan, *, seed: int, every: int = 1) -> None:
        super().__init__(len(pairs), plan, seed=seed, every=every)
        self.tensors = [
            PackedTensor(
                tensor,
                device=self.device,
                dtype=self.dtype,
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
    """Batches of a stream, made in threads of their own while earlier steps run.

    `steps` is the length of the run, `predict` the model as it is at the time. Raises DataError when the
    stream makes other shapes than it says; what its own code raises names it.
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
    ) -> None:
        super().__init__(len(stream), plan, seed=seed, every=every)
        self.stream = stream
        self.steps = steps
        self.predict = predict
        self._blame = f"the data, {type(stream).__name__}: "
        # On a CPU the steps need all cores: one thread makes batches in what they leave over.
        threads = 1 if self.device.type == "cpu" else min(_MOST_THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="graphnet-data")
        self._ahead = threads + 1
        self._copies: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._first = 0  # the step that the first of those being made is for
        self._making: deque[Future[tuple[Tensor, ...]]] = deque()

    def given(self, step: int) -> tuple[Tensor, ...]:
        if step != self._first:  # the run goes on in its middle, or some of its steps run again
            self._making.clear()
            self._first = step
        self._ask()
        started = time.perf_counter()
        made = self._making.popleft().result()
        self.waited_s += time.perf_counter() - started
        self._first += 1
        self._ask()
        with blame(self._blame, "finish"):
            there = tuple(self._moved(tensor) for tensor in made)
            batch = self.stream.finish(there, self.predict, step / self.steps)
        return self._packed(batch)

    def _ask(self) -> None:
        """Have the batches made that the next steps want."""
        for step in range(self._first + len(self._making), self._first + self._ahead):
            if step < self.steps:
                epoch, index = self.samples(step)
                self._making.append(self._threads.submit(self._make, epoch, index.tolist()))

    def _make(self, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        with blame(self._blame, "batch"):
            made = self.stream.batch(self.seed, epoch, indices)
        # From pinned memory a copy to the device goes on while the steps do.
        return tuple(t.pin_memory() for t in made) if self.device.type == "cuda" else made

    def _moved(self, tensor: Tensor) -> Tensor:
        """The tensor on the device; a copy to CUDA goes on beside the steps that run there."""
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        if self._copies is None:
            return tensor.to(self.device, dtype)
        with torch.cuda.stream(self._copies):
            moved = tensor.to(self.device, dtype, non_blocking=True)
        steps = torch.cuda.current_stream(self.device)
        steps.wait_stream(self._copies)
        moved.record_stream(steps)  # its memory is not given to the next copy while steps read it
        return moved

    def _packed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes = [tuple(tensor.shape[1:]) for tensor in batch]
        expected = [self.stream.input_shape, *self.stream.target_shapes.values()]
        if shapes != expected:
            raise DataError(
                f"{self._blame}expected batches of {expected}, as it says, got {shapes}"
            )
        return tuple(map(self._as_wanted, batch, self.values))

    def _as_wanted(self, tensor: Tensor, value: Value) -> Tensor:
        tensor = as_unit(tensor, self.dtype)
        if value.layout is not None:
            return pack(tensor, value.layout).contiguous()
        last = self.channels_last and tensor.ndim == 4
        return tensor.contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )


class PackedTensor:
    """A data set packed once, in the layout or strides that the plan's input wants, and cut into batches.

    uint8 stays uint8 until a batch is made: then it becomes 0..1.
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
        batch = self.tensor.index_select(0, index)
        if self.channels_last:
            batch = batch.permute(0, 3, 1, 2)
        return as_unit(batch, self.dtype)

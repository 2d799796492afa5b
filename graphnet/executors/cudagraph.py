"""The cudagraph executor: what a plan launches on the GPU, captured once and replayed as a whole.

A step is then one launch, whatever its number of kernels: nothing in it waits for Python. The first step
runs three times from the same weights - by eager, by what is captured, by the replay - and only a replay
that agrees with eager is trusted; its result counts. A graph holds addresses: what inputs are made of is
copied to where it reads it, everything else is used where it is. Batches of a data set on the device are cut
in the graph too: an index is all that a step is told.
"""

from __future__ import annotations

import contextlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from graphnet.errors import CompileError, LayerError
from graphnet.executors.compare import agrees, disagreement
from graphnet.executors.eager import Eager
from graphnet.executors.inductor import Inductor
from graphnet.passes import skipped
from graphnet.plan import Plan
from graphnet.sdk import Event, Executor, Make, Run, as_given

Outputs = tuple[Tensor, ...]


class CUDAGraph(Executor):
    """The plan as one CUDA graph (torch.cuda.CUDAGraph), in a memory pool of its own.

    captures: "eager", the plan's own kernels, or "inductor", the compiled plan.
    """

    captures: Literal["eager", "inductor"] = "eager"

    def prepare(self, plan: Plan) -> Run:
        device = plan.values[plan.arguments[0]].spec.device
        if device.type != "cuda":
            raise CompileError(
                f"the executor cudagraph captures what runs on CUDA, but this plan is for {device.type}. "
                f"Choose --device cuda, or the executor eager."
            )
        captured: Executor = Inductor() if self.captures == "inductor" else Eager()
        record = partial(CUDARecording, device=device)
        return Replayed(plan, captured.prepare(plan), record=record)


class Recording(ABC):
    """What a function did, to be done again on the same tensors."""

    @abstractmethod
    def replay(self) -> Outputs:
        """Do it again. The results are the same tensors each time, with new values."""


class CUDARecording(Recording):
    """The kernels that a function launches on a device, captured as a CUDA graph.

    Other threads may go on using the device meanwhile, as those do that make batches.
    """

    def __init__(self, function: Callable[[], Outputs], *, device: torch.device) -> None:
        self.graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            try:
                self.graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                self.outputs = function()
                self.graph.capture_end()
            except Exception:
                _abandon(self.graph, pool)
                raise

    def replay(self) -> Outputs:
        self.graph.replay()
        return self.outputs


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """End a capture that failed on the current device, so that others can follow.

    torch ends it as far as CUDA is concerned, but where CUDA then reports the failure, it leaves its
    allocator giving out the memory of the graph, and its random numbers belonging to it.
    """
    try:
        graph.capture_end()
    except RuntimeError:
        index = torch.cuda.current_device()
        with contextlib.suppress(RuntimeError):  # where it had got so far as to end that
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())


class Replayed(Run):
    """A run by replay, once its recording agrees with eager; `stayed` says why there is none.

    `run` is what is recorded, `record` makes a Recording of a function.
    """

    def __init__(
        self, plan: Plan, run: Run, *, record: Callable[[Callable[[], Outputs]], Recording]
    ) -> None:
        self.plan = plan
        self.run = run
        self.recorder = record
        self.eager = Eager().prepare(plan)
        self.recording: Recording | None = None
        self.stayed: str | None = None
        self.make: Make = as_given
        self.given: tuple[Tensor, ...] = ()  # where the recording reads what inputs are made of
        self.rest: tuple[Tensor, ...] = ()  # what else it was made with
        self.news: list[Event] = []

    def __call__(self, *arguments: Tensor) -> Outputs:
        count = len(self.plan.inputs)
        return self.on(as_given, arguments[:count], arguments[count:])

    def on(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> Outputs:
        if self.stayed is not None:
            return self.eager.on(make, given, rest)
        same = make == self.make and all(map(operator.is_, rest, self.rest))
        if self.recording is None or not same:
            return self._record(make, given, rest)
        return self._replay(self.recording, given)

    def events(self) -> list[Event]:
        more = self.run.events()
        news, self.news = self.news, []
        return [*more, *news]

    def record(self) -> dict[str, Any]:
        return {**self.run.record(), "captured": self.recording is not None, "stayed": self.stayed}

    def _replay(self, recording: Recording, given: Sequence[Tensor]) -> Outputs:
        for place, tensor in zip(self.given, given, strict=True):
            place.copy_(tensor, non_blocking=True)
        return tuple(output.clone() for output in recording.replay())

    def _record(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> Outputs:
        """Record the step, and run it: by eager too, from the same slots, to compare the two."""
        again, self.recording = self.recording is not None, None  # whatever fails on the way
        places = tuple(tensor.clone() for tensor in given)
        self.make, self.given, self.rest = make, places, tuple(rest)
        arguments = (*make(*places), *rest)
        named = dict(zip(self.plan.arguments, arguments, strict=True))
        slots = {name: named[name] for name in self.plan.slots}
        before = {name: tensor.clone() for name, tensor in slots.items()}

        def restore(values: dict[str, Tensor]) -> None:
            for name, tensor in slots.items():
                tensor.copy_(values[name])

        expected = self.eager(*arguments)
        after = {name: tensor.clone() for name, tensor in slots.items()}
        if skipped(before, after):
            return expected  # the next step is compared
        restore(before)
        try:
            self.run(*arguments)  # libraries choose their kernels now: they cannot while recorded
            restore(before)
            self.recording = self.recorder(lambda: self.run.on(make, places, rest))
            found = self._replay(self.recording, given)
        except (RuntimeError, CompileError, LayerError) as error:
            problem: str | None = f"the plan cannot be captured: {str(error).strip()}"
        else:
            problem = disagreement(
                self.plan, before, expected=(expected, after), found=(found, slots)
            )
            if problem is not None:
                problem = f"the captured plan does not agree with eager: {problem}"
        if problem is not None:
            restore(after)
            self.recording, self.stayed = None, problem
            self.news.append(Event("stayed", f"stays on eager: {problem}"))
            return expected
        moved = "again, as it reads other tensors now, " if again else ""
        self.news.append(Event("captured", f"the plan was captured {moved}and {agrees(self.plan)}"))
        return found

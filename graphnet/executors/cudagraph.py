"""The cudagraph executor: the kernels of a plan are captured once as a CUDA graph, and replayed each step.

A replay is one launch for all kernels of the step, so no kernel waits for Python. The first step runs three
times from the same weights: by eager, by the function that is captured, and by the replay. The replay is
used only if it agrees with eager.

Several processes run the same step three times too, so their exchanges of values belong to each other; NCCL
captures them with the other kernels.

A CUDA graph reads fixed addresses. So the tensors that the inputs are made of are copied to the addresses
that the graph reads; all other arguments must be the same tensors at each step. Where a data set lies on the
device, the graph also selects the batch from it, and a step only passes the index of the samples.
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
from graphnet.executors.compare import agreement, disagreement
from graphnet.executors.eager import Eager
from graphnet.executors.inductor import Inductor
from graphnet.passes import skipped
from graphnet.plan import Plan
from graphnet.sdk import Event, Exchange, Executor, Make, Run, as_given

Outputs = tuple[Tensor, ...]


class CUDAGraph(Executor):
    """Runs a plan as one CUDA graph (torch.cuda.CUDAGraph) with a memory pool of its own.

    Args:
        captures: "eager" captures the plan's own kernels, "inductor" the plan compiled by Inductor.
    """

    captures: Literal["eager", "inductor"] = "eager"

    def prepare(self, plan: Plan) -> Run:
        device = plan.device
        if device.type != "cuda":
            raise CompileError(
                f"the executor cudagraph runs plans for CUDA, but this plan is for {device.type}. "
                f"Choose --device cuda, or the executor eager."
            )
        captured: Executor = Inductor() if self.captures == "inductor" else Eager()
        record = partial(CUDARecording, device=device)
        return Replayed(plan, captured.prepare(plan), record=record)


class Recording(ABC):
    """The recorded work of a function, which can run again on the same tensors."""

    @abstractmethod
    def replay(self) -> Outputs:
        """Run the recorded work again. Each replay returns the same tensors with new values."""


class CUDARecording(Recording):
    """The kernels that a function launches, captured as a CUDA graph.

    Other threads, such as those that make batches, may use the device during the capture.

    Args:
        function: launches the kernels; it runs once, during the capture.
        device: the CUDA device.
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
    """End a failed capture on the current device, so that a later capture can succeed.

    torch ends the capture in CUDA. But if CUDA then reports the failure, torch's allocator still gives out
    memory of the graph's pool, and torch's random generator still belongs to the graph: both are reset here.
    """
    try:
        graph.capture_end()
    except RuntimeError:
        index = torch.cuda.current_device()
        with contextlib.suppress(RuntimeError):  # torch has already ended the use of the pool
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())


class Replayed(Run):
    """A Run that replays a recording of another Run, if the recording agrees with eager.

    If it does not agree, or cannot be made, eager runs every step and `stayed` holds the reason.

    Args:
        plan: the plan that both compute.
        run: the Run to record.
        record: makes a Recording of a function.
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
        # The tensors that the recording reads: new values are copied into the first at each step.
        self.static_inputs: tuple[Tensor, ...] = ()
        self.static_rest: tuple[Tensor, ...] = ()
        self._events: list[Event] = []

    def __call__(self, *arguments: Tensor) -> Outputs:
        count = len(self.plan.inputs)
        return self.on(as_given, arguments[:count], arguments[count:])

    def on(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> Outputs:
        if self.stayed is not None:
            return self.eager.on(make, given, rest)
        same = make == self.make and all(map(operator.is_, rest, self.static_rest))
        if self.recording is None or not same:
            return self._record(make, given, rest)
        return self._replay(self.recording, given)

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return [*self.run.events(), *events]

    def record(self) -> dict[str, Any]:
        return {**self.run.record(), "captured": self.recording is not None, "stayed": self.stayed}

    def _replay(self, recording: Recording, given: Sequence[Tensor]) -> Outputs:
        for static, tensor in zip(self.static_inputs, given, strict=True):
            static.copy_(tensor, non_blocking=True)
        return tuple(output.clone() for output in recording.replay())

    def _record(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> Outputs:
        """Run the step by eager, record it, replay it from the same slots, and compare the two results."""
        # There is no recording if a line below fails.
        again, self.recording = self.recording is not None, None
        copies = tuple(tensor.clone() for tensor in given)
        self.make, self.static_inputs, self.static_rest = make, copies, tuple(rest)
        arguments = (*make(*copies), *rest)
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
            self.run(*arguments)  # libraries choose their kernels now: they cannot during a capture
            restore(before)
            self.recording = self.recorder(lambda: self.run.on(make, copies, rest))
            found = self._replay(self.recording, given)
        except (RuntimeError, CompileError, LayerError) as error:
            problem: str | None = f"the plan cannot be captured: {str(error).strip()}"
            if any(isinstance(step.call.layer, Exchange) for step in self.plan.steps):
                # The others run the step again: this process would answer them with another step.
                raise CompileError(
                    f"{problem}. The other processes of the training capture it, so this one cannot go on. "
                    f"Choose the executor eager for all."
                ) from error
        else:
            problem = disagreement(
                self.plan, before, expected=(expected, after), found=(found, slots)
            )
            if problem is not None:
                problem = f"the captured plan does not agree with eager: {problem}"
        if problem is not None:
            restore(after)
            self.recording, self.stayed = None, problem
            self._events.append(Event("stayed", f"stays on eager: {problem}"))
            return expected
        reason = "again, because it now reads other tensors, " if again else ""
        message = f"the plan was captured {reason}and {agreement(self.plan)}"
        self._events.append(Event("captured", message))
        return found

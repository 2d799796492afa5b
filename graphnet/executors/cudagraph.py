"""The cudagraph executor: the kernels of a plan are captured once as a CUDA graph, and replayed each step.

A replay is one launch for all kernels of the step, so no kernel waits for Python. The first step runs three
times from the same weights: by eager, by the function that is captured, and by the replay. The replay is
used only if it agrees with eager.

A launch takes as long as several small kernels. So a training on a data set that lies on the device captures
32 steps as one more graph, and compares its first replay with replays of single steps.

Several processes run the same step three times too, so their exchanges of values belong to each other; NCCL
captures them with the other kernels.

A CUDA graph reads fixed addresses. So the tensors that the inputs are made of are copied to the addresses
that the graph reads; all other arguments must be the same tensors at each step. Where a data set lies on the
device, the graph also selects the batch from it, and a step only passes the index of the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from graphnet.errors import CompileError, LayerError
from graphnet.executors.compare import agreement, disagreement
from graphnet.executors.eager import Eager
from graphnet.executors.inductor import Inductor
from graphnet.executors.recording import CUDARecording, Outputs, Recorded, Recording
from graphnet.graph import Kind
from graphnet.passes import skipped
from graphnet.plan import Plan
from graphnet.sdk import Event, Exchange, Executor, Make, OneStep, Run, as_given

Tensors = Mapping[str, Tensor]
_MOST_CALLS = 4096  # in the graph of several training steps
_MOST_BYTES = 256 << 20  # of the predicted peak of a training step that is captured several times
_SAME = 1e-3  # the largest difference between replays of several steps and of single ones


class CUDAGraph(Executor):
    """Runs a plan as one CUDA graph (torch.cuda.CUDAGraph) with a memory pool of its own.

    Args:
        captures: "eager" captures the plan's own kernels, "inductor" the plan compiled by Inductor.
        steps: the number of training steps that are captured as one graph, for a training on a data set in
            memory; see `steps_together`. 1 captures single steps only.
    """

    captures: Literal["eager", "inductor"] = "eager"
    steps: Annotated[int, Field(ge=1)] = 32

    def prepare(self, plan: Plan) -> Run:
        device = plan.device
        if device.type != "cuda":
            raise CompileError(
                f"the executor cudagraph runs plans for CUDA, but this plan is for {device.type}. "
                f"Choose --device cuda, or the executor eager."
            )
        captured: Executor = Inductor() if self.captures == "inductor" else Eager()
        record = partial(CUDARecording, device=device)
        run, steps = captured.prepare(plan), steps_together(plan, self.steps)
        return Replayed(plan, run, record=record, steps=steps)


def steps_together(plan: Plan, most: int) -> int:
    """Return how many training steps are captured as one graph, at most `most`.

    A training step of many calls, or on much memory, takes so long that its launch does not matter. So its
    graph needs no second copy of its memory. Several processes capture single steps: each decides by itself
    whether it replays, and all must run the same steps.
    """
    together = any(isinstance(step.call.layer, Exchange) for step in plan.steps)
    if together or plan.peak_bytes > _MOST_BYTES:
        return 1
    return max(1, min(most, _MOST_CALLS // max(1, len(plan.steps))))


class Replayed(Run):
    """A Run that replays a recording of another Run, if the recording agrees with eager.

    If it does not agree, or cannot be made, eager runs every step and `stayed` holds the reason. Several
    steps have a recording of their own, if it agrees with replays of single steps.

    Args:
        plan: the plan that both compute.
        run: the Run to record.
        record: makes a Recording of a function.
        steps: the number of steps that are recorded together.
    """

    def __init__(
        self,
        plan: Plan,
        run: Run,
        *,
        record: Callable[[Callable[[], Outputs]], Recording],
        steps: int = 1,
    ) -> None:
        self.plan = plan
        self.run = run
        self.recorder = record
        self.steps = steps
        self.eager = Eager().prepare(plan)
        self.one: Recorded | None = None
        self.several: Recorded | None = None
        self.stayed: str | None = None  # the reason to run eager
        self.one_by_one: str | None = None  # the reason to replay steps one by one
        self._events: list[Event] = []

    def __call__(self, *arguments: Tensor) -> Outputs:
        count = len(self.plan.inputs)
        return self.on(as_given, arguments[:count], arguments[count:])

    def on(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> Outputs:
        if self.stayed is not None:
            return self.eager.on(make, given, rest)
        if self.one is None or not self.one.is_of(make, rest):
            return self._record_one(make, given, rest)
        for place, tensor in zip(self.one.inputs, given, strict=True):
            place.copy_(tensor, non_blocking=True)
        return self.one.replay()

    @property
    def steps_at_once(self) -> int:
        return 1 if self.stayed or self.one_by_one else self.steps

    def on_each(
        self, one_step: OneStep, given: Sequence[Sequence[Tensor]], rest: Sequence[Tensor]
    ) -> list[Outputs]:
        if self.one is None or len(given) != self.steps_at_once or len(given) == 1:
            return super().on_each(one_step, given, rest)
        if self.several is None or not self.several.is_of(one_step, rest):
            return self._record_several(one_step, given, rest)
        for place, tensors in zip(self.several.inputs, zip(*given, strict=True), strict=True):
            torch.stack(tensors, out=place)
        return _apart(self.several.replay())

    def events(self) -> list[Event]:
        events, self._events = self._events, []
        return [*self.run.events(), *events]

    def record(self) -> dict[str, Any]:
        return {
            **self.run.record(),
            "captured": self.one is not None,
            "stayed": self.stayed,
            "one_by_one": self.one_by_one,
            "steps_at_once": self.steps if self.several else 1,
        }

    def _record_one(self, make: Make, given: Sequence[Tensor], rest: Sequence[Tensor]) -> Outputs:
        """Run the step by eager, record it, replay it from the same slots, and compare the two results."""
        # There is no recording if a line below fails.
        again, self.one, self.several = self.one is not None, None, None
        changed = _Changed(self.plan, rest)
        copies = tuple(tensor.clone() for tensor in given)
        expected = self.eager.on(make, copies, rest)
        after = changed.copy()
        if skipped(changed.before, after):
            return expected  # the next step is compared

        def recorded() -> Outputs:
            changed.restore(changed.before)
            self.run.on(make, copies, rest)  # libraries choose kernels, as no capture lets them
            changed.restore(changed.before)
            recording = self.recorder(lambda: self.run.on(make, copies, rest))
            self.one = Recorded(recording, make, copies, rest)
            return self.one.replay()

        found, problem = self._attempt(recorded, changed, expected, after, other="eager")
        if found is None:
            self.one, self.stayed = None, problem
            self._events.append(Event("stayed", f"stays on eager: {problem}"))
            return expected
        reason = "again, because it now reads other tensors, " if again else ""
        message = f"the plan was captured {reason}and {agreement(self.plan)}"
        self._events.append(Event("captured", message))
        return found

    def _record_several(
        self, one_step: OneStep, given: Sequence[Sequence[Tensor]], rest: Sequence[Tensor]
    ) -> list[Outputs]:
        """Replay the steps one by one, record them together, replay that, and compare the two results."""
        self.several = None
        changed = _Changed(self.plan, rest)
        singles = super().on_each(one_step, given, rest)
        if self.one is None:
            return singles  # other tensors were given, and the step cannot be captured any more
        after, expected = changed.copy(), _together(singles)
        inputs = _together(given)

        def all_steps() -> Outputs:
            each = zip(*(column.unbind() for column in inputs), strict=True)
            return _together([one_step(self.run, tensors, rest) for tensors in each])

        def recorded() -> Outputs:
            changed.restore(changed.before)
            self.several = Recorded(self.recorder(all_steps), one_step, inputs, rest)
            return self.several.replay()

        found, problem = self._attempt(
            recorded, changed, expected, after, other="single steps", limit=_SAME
        )
        if found is None:
            self.several, self.one_by_one = None, problem
            self._events.append(Event("one_by_one", f"replays steps one by one: {problem}"))
            return singles
        self._events.append(Event("captured", f"{self.steps} steps were captured as one"))
        return _apart(found)

    def _attempt(
        self,
        recorded: Callable[[], Outputs],
        changed: _Changed,
        expected: Outputs,
        after: Tensors,
        *,
        other: str,
        limit: float | None = None,
    ) -> tuple[Outputs | None, str]:
        """Record, replay, and compare with the results of an `other` run.

        Returns the results, or None and the problem, with the slots as in `after`.
        """
        try:
            found = recorded()
        except (RuntimeError, CompileError, LayerError) as error:
            problem = f"the plan cannot be captured: {str(error).strip()}"
            if any(isinstance(step.call.layer, Exchange) for step in self.plan.steps):
                # The others run the step again: this process would answer them with another step.
                raise CompileError(
                    f"{problem}. The other processes of the training capture it, so this one cannot go on. "
                    f"Choose the executor eager for all."
                ) from error
        else:
            where = disagreement(
                self.plan,
                changed.before,
                expected=(expected, after),
                found=(found, changed.now),
                limit=limit,
            )
            if where is None:
                return found, ""
            problem = f"the captured plan does not agree with {other}: {where}"
        changed.restore(after)
        return None, problem


class _Changed:
    """What steps change: the slots, the learning rate and the counts; and a copy of it `before` the steps."""

    def __init__(self, plan: Plan, rest: Sequence[Tensor]) -> None:
        names = plan.arguments[len(plan.inputs) :]
        kinds = {name: plan.values[name].kind for name in names}
        self.now = {
            name: tensor
            for name, tensor in zip(names, rest, strict=True)
            if name in plan.slots or kinds[name] is Kind.SCALAR
        }
        self.before = self.copy()

    def copy(self) -> Tensors:
        return {name: tensor.clone() for name, tensor in self.now.items()}

    def restore(self, values: Tensors) -> None:
        for name, tensor in self.now.items():
            tensor.copy_(values[name])


def _together(steps: Sequence[Sequence[Tensor]]) -> Outputs:
    """The tensors of several steps, each with the steps as its first axis."""
    return tuple(torch.stack(tensors) for tensors in zip(*steps, strict=True))


def _apart(together: Outputs) -> list[Outputs]:
    """The tensors of each step."""
    return list(zip(*(tensor.unbind() for tensor in together), strict=True))

"""Recordings that any machine can make, with which the executor cudagraph runs on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from graphnet.executors import CUDAGraph, Eager
from graphnet.executors.cudagraph import Replayed, steps_together
from graphnet.executors.recording import Outputs, Recording
from graphnet.plan import Plan
from graphnet.sdk import Run


class Again(Recording):
    """Does the function again, into the results of the first time: what a CUDA graph does."""

    made = 0

    def __init__(self, function: Callable[[], Outputs]) -> None:
        type(self).made += 1
        self.function = function
        self.outputs: Outputs = ()

    def replay(self) -> Outputs:
        outputs = self.function()
        if not self.outputs:
            self.outputs = tuple(output.clone() for output in outputs)
        for place, output in zip(self.outputs, outputs, strict=True):
            place.copy_(output)
        return self.outputs


class Wrong(Again):
    """Replays with results that are a little too large."""

    def replay(self) -> Outputs:
        return tuple(output.mul_(1.01) for output in super().replay())


class WrongTogether(Again):
    """Replays single steps as they are, and several steps with losses that are a little too large."""

    def replay(self) -> Outputs:
        outputs = super().replay()
        return tuple(output.mul_(1.01) if output.ndim else output for output in outputs)


class SecondFails(Again):
    """Records single steps, and cannot record several: the second recording fails."""

    def __init__(self, function: Callable[[], Outputs]) -> None:
        super().__init__(function)
        if SecondFails.made == 2:
            raise RuntimeError("out of memory")


class Failing(Again):
    """Cannot record what reads a number back to Python, say."""

    def __init__(self, function: Callable[[], Outputs]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")


class Strict(Again):
    """Refuses, while it records, what waits for the device, as CUDA does."""

    recording: ClassVar[bool] = False

    def __init__(self, function: Callable[[], Outputs]) -> None:
        Strict.recording = True
        try:
            function()
        finally:
            Strict.recording = False
        super().__init__(function)


class OnTheCPU(CUDAGraph):
    """The executor with a recording that any machine can make."""

    recording: str = "Again"

    def prepare(self, plan: Plan) -> Run:
        kinds: dict[str, type[Recording]] = {
            kind.__name__: kind
            for kind in (Again, Wrong, WrongTogether, SecondFails, Failing, Strict)
        }
        steps = steps_together(plan, self.steps)
        return Replayed(plan, Eager().prepare(plan), record=kinds[self.recording], steps=steps)

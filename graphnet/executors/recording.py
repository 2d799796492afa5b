"""Recording: the work of a function, captured once as a CUDA graph, that can run again without Python.

A recording reads and writes the same memory each time.
"""

from __future__ import annotations

import contextlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]


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


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording, with the function and the tensors that it was made from.

    Args:
        recording: can run the work again.
        work: the function that the recording has run besides the plan; an equal one needs no new recording.
        inputs: the tensors that the recording reads, into which each replay copies new values.
        rest: the plan's other arguments, whose addresses the recording has.
    """

    recording: Recording
    work: object
    inputs: Sequence[Tensor]
    rest: Sequence[Tensor]

    def is_of(self, work: object, rest: Sequence[Tensor]) -> bool:
        return work == self.work and all(map(operator.is_, rest, self.rest))

    def replay(self) -> Outputs:
        """Run the recorded work on the values of `inputs`. The next replay does not change the results."""
        return tuple(output.clone() for output in self.recording.replay())

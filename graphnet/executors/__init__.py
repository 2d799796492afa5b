"""Executors: each turns a plan into a function from the plan's arguments to its outputs.

A Plan comes in; a Run goes out. It imports plan and below.
"""

from __future__ import annotations

from graphnet.executors.auto import Auto
from graphnet.executors.cudagraph import CUDAGraph
from graphnet.executors.eager import Eager
from graphnet.executors.inductor import Inductor
from graphnet.executors.prepare import prepare
from graphnet.executors.recording import CUDARecording
from graphnet.executors.reference import Reference

__all__ = [
    "Auto",
    "CUDAGraph",
    "CUDARecording",
    "Eager",
    "Inductor",
    "Reference",
    "prepare",
]

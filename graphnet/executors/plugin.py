"""The executors' plugin: eager, reference, inductor, cudagraph and auto, by the public hook."""

from __future__ import annotations

from graphnet.executors.auto import Auto
from graphnet.executors.cudagraph import CUDAGraph
from graphnet.executors.eager import Eager
from graphnet.executors.inductor import Inductor
from graphnet.executors.reference import Reference
from graphnet.sdk import Register, hookimpl


@hookimpl
def graphnet_executors(register: Register) -> None:
    register("eager", Eager)
    register("reference", Reference)
    register("inductor", Inductor)
    register("cudagraph", CUDAGraph)
    register("auto", Auto)

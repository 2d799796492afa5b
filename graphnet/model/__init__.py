"""Model: a description with weights, what it is compiled to, and the files that hold both.

A description comes in; a Model, a Program, predictions and checkpoints go out. It imports executors
and below.
"""

from __future__ import annotations

from graphnet.model.builder import Builder, Output
from graphnet.model.checkpoint import (
    Checkpoint,
    inspect_file,
    read_checkpoint,
    versions_of,
    write_checkpoint,
)
from graphnet.model.eager import from_nn, to_nn
from graphnet.model.export import export, writer_for
from graphnet.model.free_sizes import open_sizes, resized
from graphnet.model.model import Model
from graphnet.model.padding import pad_to_multiple
from graphnet.model.processes import SINGLE, Joined, join_processes
from graphnet.model.program import Program
from graphnet.model.slots import plain_spec, set_up
from graphnet.model.standalone import StandaloneFolder, export_standalone

__all__ = [
    "SINGLE",
    "Builder",
    "Checkpoint",
    "Joined",
    "Model",
    "Output",
    "Program",
    "StandaloneFolder",
    "export",
    "export_standalone",
    "from_nn",
    "inspect_file",
    "join_processes",
    "open_sizes",
    "pad_to_multiple",
    "plain_spec",
    "read_checkpoint",
    "resized",
    "set_up",
    "to_nn",
    "versions_of",
    "write_checkpoint",
    "writer_for",
]

"""Model: a description with weights, what it is compiled to, and the files that hold both.

A description comes in; a Model, a Program, predictions and checkpoints go out. It imports executors
and below.
"""

from __future__ import annotations

from graphnet.model.builder import Builder, Output
from graphnet.model.checkpoint import Checkpoint, read_checkpoint, versions_of, write_checkpoint
from graphnet.model.eager import from_nn, to_nn
from graphnet.model.model import Model
from graphnet.model.padding import pad_to_multiple
from graphnet.model.program import Program
from graphnet.model.slots import plain_spec, set_up

__all__ = [
    "Builder",
    "Checkpoint",
    "Model",
    "Output",
    "Program",
    "from_nn",
    "pad_to_multiple",
    "plain_spec",
    "read_checkpoint",
    "set_up",
    "to_nn",
    "versions_of",
    "write_checkpoint",
]

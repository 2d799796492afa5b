"""Plan: a graph becomes frozen, ordered, verified steps, and the source of one Python function.

A Graph and CompileOptions come in; a Plan goes out. It imports passes and below.
"""

from __future__ import annotations

from graphnet.plan.codegen import Source, generate
from graphnet.plan.compile import adding_plan, forward_graph, inference_plan, training_plan
from graphnet.plan.export import source
from graphnet.plan.options import AUTO, CompileOptions, Target, split_options
from graphnet.plan.plan import Plan, Step, check_plan, schedule
from graphnet.plan.standalone import Standalone, check_names, standalone
from graphnet.plan.tiling import Margin, Tiling, margins, pace, tile
from graphnet.plan.verify import verify

__all__ = [
    "AUTO",
    "CompileOptions",
    "Margin",
    "Plan",
    "Source",
    "Standalone",
    "Step",
    "Target",
    "Tiling",
    "adding_plan",
    "check_names",
    "check_plan",
    "forward_graph",
    "generate",
    "inference_plan",
    "margins",
    "pace",
    "schedule",
    "source",
    "split_options",
    "standalone",
    "tile",
    "training_plan",
    "verify",
]

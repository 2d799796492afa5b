"""Graph: frozen data becomes a graph of calls, whose shapes and costs are observed on meta tensors.

A ModelDescription and input shapes come in; a Graph, with the results and cost of each call, goes out.
It imports description and below.
"""

from __future__ import annotations

from graphnet.graph.aliases import Aliases, aliases, base
from graphnet.graph.build import GraphBuilder, build
from graphnet.graph.cost import Cost, call_cost, count
from graphnet.graph.dispatch import Operation, is_mask, operations_of, operations_until_failure
from graphnet.graph.invoke import (
    as_tuple,
    gradient_names,
    gradients_are_bare,
    invoke,
    positional,
    result_names,
    star_of,
)
from graphnet.graph.ir import (
    LR,
    SEED,
    SLOTS,
    SOON,
    SOURCES,
    STEP,
    Arg,
    Call,
    Const,
    Graph,
    Kind,
    Slot,
    Value,
    flatten,
)
from graphnet.graph.lifetimes import (
    Item,
    Lifetimes,
    MemoryUse,
    Overwrites,
    Storages,
    item,
    lifetimes,
    memory_use,
    no_overwrites,
)
from graphnet.graph.meta_run import Returned, flat, run_on_meta
from graphnet.graph.observe import (
    META,
    Bound,
    Ports,
    Result,
    bind_inputs,
    observe,
    observe_backward,
    resolve_view,
)
from graphnet.graph.roofline import (
    Machine,
    compute_dtype,
    load_machine,
    machine_data,
    machine_path,
    predicted_seconds,
    save_machine,
    stated_machine,
)

__all__ = [
    "LR",
    "META",
    "SEED",
    "SLOTS",
    "SOON",
    "SOURCES",
    "STEP",
    "Aliases",
    "Arg",
    "Bound",
    "Call",
    "Const",
    "Cost",
    "Graph",
    "GraphBuilder",
    "Item",
    "Kind",
    "Lifetimes",
    "Machine",
    "MemoryUse",
    "Operation",
    "Overwrites",
    "Ports",
    "Result",
    "Returned",
    "Slot",
    "Storages",
    "Value",
    "aliases",
    "as_tuple",
    "base",
    "bind_inputs",
    "build",
    "call_cost",
    "compute_dtype",
    "count",
    "flat",
    "flatten",
    "gradient_names",
    "gradients_are_bare",
    "invoke",
    "is_mask",
    "item",
    "lifetimes",
    "load_machine",
    "machine_data",
    "machine_path",
    "memory_use",
    "no_overwrites",
    "observe",
    "observe_backward",
    "operations_of",
    "operations_until_failure",
    "positional",
    "predicted_seconds",
    "resolve_view",
    "result_names",
    "run_on_meta",
    "save_machine",
    "star_of",
    "stated_machine",
]

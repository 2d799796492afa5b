"""SDK: all that a plugin author imports: Layer, Loss, Kernel, Optimizer, DataSet, Executor, hooks, registry.

A plugin's classes come in through hooks; a Registry goes out. It imports system and errors.
"""

from __future__ import annotations

from graphnet.sdk import random
from graphnet.sdk.blocks import Layout, blocked_shape, channels_last, pack, plain_shape, unpack
from graphnet.sdk.command import Command
from graphnet.sdk.contract import CHANGES, CONTRACT, changes_since
from graphnet.sdk.dataset import DataSet, Gallery, Pairs, Shape, Stream, as_unit, converted
from graphnet.sdk.definition import Definition, changed_fields, summary
from graphnet.sdk.discovery import default_registry, load_registry, registry_or_default
from graphnet.sdk.executor import Event, Executor, Make, Run, as_given
from graphnet.sdk.fields import Bound, Factor, Fraction, Rate, Sides
from graphnet.sdk.floating import (
    FLOATING,
    INTEGERS,
    advice,
    check_dtype,
    check_kind,
    check_tensors,
    conversion,
    not_floating,
    not_of_dtype,
    unreadable,
)
from graphnet.sdk.graph_pass import PASSES, Pass, Rewritable
from graphnet.sdk.hookspecs import Register, hookimpl
from graphnet.sdk.initializers import ConvInit, LinearInit, weight_and_bias
from graphnet.sdk.intrinsics import (
    DTYPES,
    Accumulate,
    AddTo,
    Assign,
    Cast,
    Clear,
    Convert,
    DType,
    Follow,
    IfFinite,
    Key,
    Scaled,
    ScaleShift,
    Times,
    WeightedSum,
)
from graphnet.sdk.kernel import CHAIN, Kernel, Pattern, Site, has_chain, layer_names
from graphnet.sdk.kinds import KINDS, OwnKind, PluginKind
from graphnet.sdk.layer import Layer, Loss, Precision, Specs
from graphnet.sdk.metric import Metric
from graphnet.sdk.model_file import ModelFile, ending_advice
from graphnet.sdk.multi_tensor import (
    COMMON,
    MultiTensorKernel,
    Tensors,
    arguments_of,
    matched,
    method_of,
)
from graphnet.sdk.optimizer import Optimizer, rule_and_share, update_arguments
from graphnet.sdk.random import node_constant
from graphnet.sdk.records import Decided, Epoch, Record, Steps, Stopped
from graphnet.sdk.registry import Entry, Plugin, Registry, frozen, split_form, thawed
from graphnet.sdk.reporter import Report, Reporter, Running
from graphnet.sdk.schedule import Schedule
from graphnet.sdk.signature import AFFINE, IN_PLACE, RESERVED
from graphnet.sdk.spatial import (
    Factors,
    NonNegativeSides,
    NonNegativeSizes,
    OptionalSizes,
    PositiveSizes,
    Spatial,
    by,
)
from graphnet.sdk.spec import (
    Constant,
    Initializer,
    ParameterSpec,
    Spec,
    StateSpec,
    Uniform,
    dtype_name,
)
from graphnet.sdk.torch_operator import (
    Found,
    Node,
    Operand,
    Row,
    Size,
    alike,
    is_float,
    nodes_of,
    sizes,
)
from graphnet.sdk.torch_ops import (
    ARITHMETIC,
    Gradients,
    no_results,
    only,
    register_operator,
    scratch_bytes,
)
from graphnet.sdk.validation import first_fault, problems
from graphnet.sdk.writer import Writer, Written

__all__ = [
    "AFFINE",
    "ARITHMETIC",
    "CHAIN",
    "CHANGES",
    "COMMON",
    "CONTRACT",
    "DTYPES",
    "FLOATING",
    "INTEGERS",
    "IN_PLACE",
    "KINDS",
    "PASSES",
    "RESERVED",
    "Accumulate",
    "AddTo",
    "Assign",
    "Bound",
    "Cast",
    "Clear",
    "Command",
    "Constant",
    "ConvInit",
    "Convert",
    "DType",
    "DataSet",
    "Decided",
    "Definition",
    "Entry",
    "Epoch",
    "Event",
    "Executor",
    "Factor",
    "Factors",
    "Follow",
    "Found",
    "Fraction",
    "Gallery",
    "Gradients",
    "IfFinite",
    "Initializer",
    "Kernel",
    "Key",
    "Layer",
    "Layout",
    "LinearInit",
    "Loss",
    "Make",
    "Metric",
    "ModelFile",
    "MultiTensorKernel",
    "Node",
    "NonNegativeSides",
    "NonNegativeSizes",
    "Operand",
    "Optimizer",
    "OptionalSizes",
    "OwnKind",
    "Pairs",
    "ParameterSpec",
    "Pass",
    "Pattern",
    "Plugin",
    "PluginKind",
    "PositiveSizes",
    "Precision",
    "Rate",
    "Record",
    "Register",
    "Registry",
    "Report",
    "Reporter",
    "Rewritable",
    "Row",
    "Run",
    "Running",
    "ScaleShift",
    "Scaled",
    "Schedule",
    "Shape",
    "Sides",
    "Site",
    "Size",
    "Spatial",
    "Spec",
    "Specs",
    "StateSpec",
    "Steps",
    "Stopped",
    "Stream",
    "Tensors",
    "Times",
    "Uniform",
    "WeightedSum",
    "Writer",
    "Written",
    "advice",
    "alike",
    "arguments_of",
    "as_given",
    "as_unit",
    "blocked_shape",
    "by",
    "changed_fields",
    "changes_since",
    "channels_last",
    "check_dtype",
    "check_kind",
    "check_tensors",
    "conversion",
    "converted",
    "default_registry",
    "dtype_name",
    "ending_advice",
    "first_fault",
    "frozen",
    "has_chain",
    "hookimpl",
    "is_float",
    "layer_names",
    "load_registry",
    "matched",
    "method_of",
    "no_results",
    "node_constant",
    "nodes_of",
    "not_floating",
    "not_of_dtype",
    "only",
    "pack",
    "plain_shape",
    "problems",
    "random",
    "register_operator",
    "registry_or_default",
    "rule_and_share",
    "scratch_bytes",
    "sizes",
    "split_form",
    "summary",
    "thawed",
    "unpack",
    "unreadable",
    "update_arguments",
    "weight_and_bias",
]

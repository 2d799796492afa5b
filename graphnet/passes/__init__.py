"""Passes: each is a function from Graph to Graph, one pass a file, named by the field's word.

A Graph comes in; a Graph goes out. It imports graph and below.
"""

from __future__ import annotations

from graphnet.passes.absorb_casts import absorb_casts
from graphnet.passes.accumulate import GRAD, UPDATES, add_up, total, update_counter
from graphnet.passes.batch_updates import batch_updates
from graphnet.passes.block_layout import block_layout, in_blocks
from graphnet.passes.clip import clip
from graphnet.passes.common_subexpressions import common_subexpressions
from graphnet.passes.data_parallel import average_states, data_parallel, share_outputs, sum_weights
from graphnet.passes.dead_code import dead_code
from graphnet.passes.differentiate import differentiate
from graphnet.passes.ema import EMA, ema
from graphnet.passes.fold_affine import fold_affine
from graphnet.passes.freeze import freeze, keep_states
from graphnet.passes.hoist_constants import hoist_constants
from graphnet.passes.in_place import in_place, overwritable
from graphnet.passes.inference import inference
from graphnet.passes.keep_casts import keep_casts
from graphnet.passes.loss import attach_loss, target_specs
from graphnet.passes.loss_scale import (
    DONE,
    FINITE,
    SCALE,
    differentiate_scaled,
    skip,
    skipped,
    unscale,
)
from graphnet.passes.micro_batches import MicroBatches, add_parts, split
from graphnet.passes.mixed_precision import mixed_precision
from graphnet.passes.pipeline import Change, run
from graphnet.passes.placed import placed
from graphnet.passes.recompute import recompute
from graphnet.passes.report import report
from graphnet.passes.select_kernels import choose, choose_multi_tensor, fused, kernel_for, single
from graphnet.passes.shard_optimizer import gather_parameters, shardings
from graphnet.passes.store_bfloat16 import store_bfloat16
from graphnet.passes.substitute import Everywhere, plain_calls, substitute
from graphnet.passes.sync_statistics import sync_statistics
from graphnet.passes.update import chain_states, update

__all__ = [
    "DONE",
    "EMA",
    "FINITE",
    "GRAD",
    "SCALE",
    "UPDATES",
    "Change",
    "Everywhere",
    "MicroBatches",
    "absorb_casts",
    "add_parts",
    "add_up",
    "attach_loss",
    "average_states",
    "batch_updates",
    "block_layout",
    "chain_states",
    "choose",
    "choose_multi_tensor",
    "clip",
    "common_subexpressions",
    "data_parallel",
    "dead_code",
    "differentiate",
    "differentiate_scaled",
    "ema",
    "fold_affine",
    "freeze",
    "fused",
    "gather_parameters",
    "hoist_constants",
    "in_blocks",
    "in_place",
    "inference",
    "keep_casts",
    "keep_states",
    "kernel_for",
    "mixed_precision",
    "overwritable",
    "placed",
    "plain_calls",
    "recompute",
    "report",
    "run",
    "shardings",
    "share_outputs",
    "single",
    "skip",
    "skipped",
    "split",
    "store_bfloat16",
    "substitute",
    "sum_weights",
    "sync_statistics",
    "target_specs",
    "total",
    "unscale",
    "update",
    "update_counter",
]

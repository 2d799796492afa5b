"""Compile: run the passes that turn a graph into a verified plan.

Inference:  fold_affine, mixed_precision, fusion, select_kernels, absorb_casts, block_layout, inference,
            dead_code, common_subexpressions, hoist_constants, in_place.
Training:   loss, freeze, mixed_precision, fusion, select_kernels, absorb_casts, block_layout, keep_states,
            chain_states, differentiate, accumulate, unscale, clip, update, ema, batch_updates, skip,
            keep_casts, dead_code, common_subexpressions, store_bfloat16, recompute, in_place.

Passes of plugins, and common_subexpressions, are registered by the hook graphnet_passes; each runs after the
pass that its `after` names.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphnet.description import Expanded, LossTerm, UpdateSettings, check_shapes
from graphnet.graph import Graph, Kind, aliases, build, no_overwrites, predicted_seconds
from graphnet.passes import (
    Everywhere,
    MicroBatches,
    absorb_casts,
    add_up,
    attach_loss,
    batch_updates,
    block_layout,
    chain_states,
    choose,
    choose_multi_tensor,
    dead_code,
    differentiate,
    differentiate_scaled,
    fold_affine,
    freeze,
    fused,
    hoist_constants,
    in_place,
    inference,
    keep_casts,
    keep_states,
    mixed_precision,
    overwritable,
    placed,
    plain_calls,
    recompute,
    run,
    share_outputs,
    single,
    skip,
    split,
    store_bfloat16,
    substitute,
    sum_weights,
    sync_statistics,
    update,
)
from graphnet.plan.check_pass import PassCheck, check_known
from graphnet.plan.options import CompileOptions
from graphnet.plan.plan import Plan, schedule
from graphnet.plan.update_passes import adding_pass, is_scaled, reports, update_passes
from graphnet.plan.verify import verify
from graphnet.sdk import ALONE, Entry, Pass, Processes, Registry, Spec
from graphnet.system import parse_bytes

_WHOLE = MicroBatches()


def forward_graph(
    network: Expanded, shapes: Sequence[Sequence[int]], options: CompileOptions
) -> Graph:
    """The forward graph of a model for these input shapes, before any pass."""
    target = options.target
    checked = check_shapes(network.name, network.inputs, shapes)
    specs = [
        Spec(shape, described.integer or target.dtype, target.device)
        for shape, described in zip(checked, network.inputs.values(), strict=True)
    ]
    return build(network, inputs=specs, dtype=target.dtype)


def inference_plan(graph: Graph, registry: Registry, options: CompileOptions) -> Plan:
    """The verified plan that computes the outputs of a forward graph."""
    passes = (
        adding_pass(
            "fold_affine",
            "The scale and shift of channels move into the layer before.",
            fold_affine,
        ),
        *_forward_passes(registry, options, training=False),
        adding_pass(
            "inference", "Results that only training needs are removed.", inference, needed=True
        ),
        *_SIMPLIFY,
        Pass(
            hoist_constants,
            "Calls that depend only on weights run once, before the first run.",
            name="hoist_constants",
        ),
        _IN_PLACE,
    )
    return _plan(graph, passes, options, registry)


def training_plan(
    graph: Graph,
    registry: Registry,
    options: CompileOptions,
    *,
    losses: Mapping[str, Sequence[LossTerm]],
    updates: UpdateSettings,
    parts: MicroBatches = _WHOLE,
    processes: Processes = ALONE,
) -> Plan:
    """The verified plan of a whole training step: forward, loss, reverse pass and update.

    With `parts`, `graph` is that of one micro-batch, and the step computes `parts.count` of them. `processes`
    are those that compute the step together.
    """
    passes = update_passes(updates, options, parts, processes)
    optimizes = updates.optimizer is not None
    return _step(
        graph, registry, options, losses, updates, passes, parts, processes, optimizes=optimizes
    )


def adding_plan(
    graph: Graph,
    registry: Registry,
    options: CompileOptions,
    *,
    losses: Mapping[str, Sequence[LossTerm]],
    updates: UpdateSettings,
    parts: MicroBatches = _WHOLE,
    processes: Processes = ALONE,
) -> Plan:
    """The verified plan of a step that adds gradients to their slots, for a later update.

    `parts` and `processes` are those of `training_plan`.
    """

    def states(graph: Graph) -> Graph:
        return share_outputs(update(graph, updates=UpdateSettings()), processes=processes)

    passes = (
        *reports([one for one in updates.report if one != "gradient_norm"]),
        adding_pass("accumulate", "The gradients are added to their slots.", add_up, needed=True),
        adding_pass("update", "The new states of layers are written.", states, needed=True),
    )
    return _step(
        graph, registry, options, losses, updates, passes, parts, processes, optimizes=False
    )


def _step(
    graph: Graph,
    registry: Registry,
    options: CompileOptions,
    losses: Mapping[str, Sequence[LossTerm]],
    updates: UpdateSettings,
    from_gradients: Sequence[Pass[Graph]],
    parts: MicroBatches,
    processes: Processes,
    *,
    optimizes: bool,
) -> Plan:
    attach = partial(attach_loss, losses=losses, in_parts=parts.total > 1)
    scales = is_scaled(updates, options)
    of_loss = differentiate_scaled if scales else differentiate
    reverse = partial(of_loss, share=1.0 / updates.accumulate)
    gather = partial(batch_updates, kernels=choose_multi_tensor(registry, options.kernels))
    updates.check_matches(graph.parameters, graph.sources(Kind.STATE))
    freezes = any(one.freeze for one in updates.parameters)
    kept = partial(freeze, updates=updates)
    frozen = adding_pass(
        "freeze", "Frozen parameters get no gradient and no update.", kept, needed=True
    )
    states = adding_pass(
        "keep_states", "Frozen states are read, as in a prediction.", keep_states, needed=True
    )
    passes = (
        adding_pass("loss", "The losses are put on the outputs.", attach, needed=True),
        *((frozen,) if freezes else ()),
        *((_synced(processes),) if processes.count > 1 else ()),
        *_forward_passes(registry, options, training=True),
        *((states,) if freezes else ()),
        *(() if parts == _WHOLE else (_split(parts, processes),)),
        adding_pass(
            "chain_states",
            "A layer that shares its states reads those that the layer before it made.",
            chain_states,
            needed=True,
        ),
        adding_pass("differentiate", "The reverse pass is added.", reverse, needed=True),
        *from_gradients,
        adding_pass(
            "batch_updates",
            "On a GPU one call casts all parameters, and one call makes all updates of a rule.",
            gather,
        ),
        *((_SKIP,) if scales else ()),
        *((_KEEP,) if optimizes and options.target.narrow is not None else ()),
        *_SIMPLIFY,
        *((_STORE,) if options.saved_dtype is not None else ()),
        *((_bound(options),) if options.memory is not None else ()),
        _IN_PLACE,
    )
    return _plan(graph, passes, options, registry, optimizes=optimizes, processes=processes)


def _synced(processes: Processes) -> Pass[Graph]:
    """The pass that lets norms compute their statistics over all processes."""
    summary = "Statistics of a batch are computed over all processes."
    run = partial(sync_statistics, processes=processes)
    return adding_pass("sync_statistics", summary, run, needed=True)


def _split(parts: MicroBatches, processes: Processes) -> Pass[Graph]:
    """The pass that lets a step compute its batch in parts."""

    def in_parts(graph: Graph) -> Graph:
        return sum_weights(split(graph, parts=parts), processes=processes)

    summary = "The batch is computed in parts, whose gradients are added up in a fixed order."
    return adding_pass("micro_batches", summary, in_parts, needed=True)


_SIMPLIFY = (
    Pass(dead_code, "Calls whose results nobody reads are removed.", name="dead_code"),
)  # after it runs common_subexpressions, by the hook graphnet_passes
_SKIP = adding_pass(
    "skip", "A step with a gradient that is not finite updates nothing.", skip, needed=True
)
_KEEP = adding_pass(
    "keep_casts",
    "The optimizer's kernel writes the new parameters in the narrow dtype too, for the next step.",
    keep_casts,
)
_STORE = adding_pass(
    "store_bfloat16",
    "Values that wait for the reverse pass are stored in bfloat16.",
    store_bfloat16,
)
_IN_PLACE = Pass(
    in_place, "Results are written over values that nothing needs any more.", name="in_place"
)


def _bound(options: CompileOptions) -> Pass[Graph]:
    """The pass that recomputes values to meet the memory budget."""
    assert options.memory is not None
    memory, writes_over = options.memory, "in_place" not in options.without

    def bounded(graph: Graph) -> Graph:
        whole = schedule(in_place(graph) if writes_over else graph).peak_bytes
        return recompute(
            graph,
            memory_bytes=parse_bytes(memory, whole=whole),
            seconds=lambda call: predicted_seconds(call, graph.values),
            overwrites=overwritable(aliases(graph)) if writes_over else no_overwrites,
        ).graph

    return Pass(bounded, "Values that do not fit into memory are computed again.", name="recompute")


def _forward_passes(
    registry: Registry, options: CompileOptions, *, training: bool
) -> tuple[Pass[Graph], ...]:
    chosen = choose(registry, options.kernels)
    fits = chosen if "fusion" not in options.without else single(chosen)

    plain: list[Container[str]] = [Everywhere()] if "block_layout" in options.without else []

    def place(graph: Graph, kernels: tuple[Entry, ...]) -> Graph:
        # Both passes use the result of the first: the calls keep their names.
        if not plain:
            plain.append(plain_calls(graph, kernels=fits, registry=registry))
        return substitute(graph, kernels=kernels, registry=registry, plain=plain[0])

    casts: list[Pass[Graph]] = []
    absorb: list[Pass[Graph]] = []
    if (narrow := options.target.narrow) is not None:
        lower = partial(mixed_precision, compute=narrow)
        summary = f"Values are cast to {narrow} where layers compute in it."
        casts.append(adding_pass("mixed_precision", summary, lower))
        summary = "A kernel that rounds its input itself reads it before the cast."
        absorb.append(adding_pass("absorb_casts", summary, absorb_casts, settled=False))

    return (
        *casts,
        adding_pass(
            "fusion",
            "One kernel takes the place of several layers.",
            partial(place, kernels=fused(chosen)),
            settled=False,
        ),
        adding_pass(
            "select_kernels",
            "A kernel takes the place of each layer that is left.",
            partial(place, kernels=single(chosen)),
            settled=False,
        ),
        *absorb,
        adding_pass(
            "block_layout",
            "Pixels are stored in the order that matrix products read them.",
            partial(block_layout, packed_inputs=training),
        ),
    )


def _plan(
    graph: Graph,
    passes: Sequence[Pass[Graph]],
    options: CompileOptions,
    registry: Registry,
    *,
    optimizes: bool = False,
    processes: Processes = ALONE,
) -> Plan:
    every = placed(passes, registry.passes)
    check_known(options.without, registry)
    check = PassCheck(registry, optimizes=optimizes, processes=processes)
    graph, changes = run(graph, every, without=options.without, check=check)
    plan = replace(schedule(graph), changes=changes)
    verify(graph, plan)
    return plan

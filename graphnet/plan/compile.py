"""Compile: run the passes that turn a graph into a verified plan.

Inference:  fold_affine, mixed_precision, fusion, select_kernels, block_layout, inference,
            dead_code, common_subexpressions, hoist_constants, in_place.
Training:   loss, mixed_precision, fusion, select_kernels, block_layout, differentiate,
            accumulate, unscale, clip, update, ema, batch_updates, skip, dead_code,
            common_subexpressions, store_bfloat16, recompute, in_place.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphnet.description import Expanded, LossTerm, UpdateSettings, check_shapes
from graphnet.graph import Graph, aliases, build, no_overwrites, predicted_seconds
from graphnet.passes import (
    DONE,
    Everywhere,
    Pass,
    add_up,
    attach_loss,
    batch_updates,
    block_layout,
    choose,
    choose_multi_tensor,
    clip,
    common_subexpressions,
    dead_code,
    differentiate,
    differentiate_scaled,
    ema,
    fold_affine,
    fused,
    hoist_constants,
    in_place,
    inference,
    mixed_precision,
    overwritable,
    plain_calls,
    recompute,
    run,
    single,
    skip,
    store_bfloat16,
    substitute,
    total,
    unscale,
    update,
    update_counter,
)
from graphnet.plan.options import CompileOptions
from graphnet.plan.plan import Plan, schedule
from graphnet.plan.verify.replay import verify, verify_graph, verify_rewrite
from graphnet.sdk import Entry, Registry, Spec
from graphnet.system import parse_bytes


def forward_graph(
    network: Expanded, shapes: Sequence[Sequence[int]], options: CompileOptions
) -> Graph:
    """The forward graph of a model for these input shapes, before any pass."""
    target = options.target
    check_shapes(network.name, network.inputs, shapes)
    specs = [
        Spec(tuple(shape), described.integer or target.dtype, target.device)
        for shape, described in zip(shapes, network.inputs.values(), strict=True)
    ]
    return build(network, inputs=specs, dtype=target.dtype)


def inference_plan(graph: Graph, registry: Registry, options: CompileOptions) -> Plan:
    """The verified plan that computes the outputs of a forward graph."""
    passes = (
        Pass(
            "fold_affine",
            "The scale and shift of channels move into the layer before.",
            fold_affine,
        ),
        *_forward_passes(registry, options, training=False),
        Pass("inference", "Results that only training needs are removed.", inference, needed=True),
        *_SIMPLIFY,
        Pass(
            "hoist_constants",
            "Calls that depend only on weights run once, before the first run.",
            hoist_constants,
            exact=True,
        ),
        _IN_PLACE,
    )
    return _plan(graph, passes, options)


def training_plan(
    graph: Graph,
    registry: Registry,
    options: CompileOptions,
    *,
    losses: Mapping[str, Sequence[LossTerm]],
    updates: UpdateSettings,
) -> Plan:
    """The verified plan of a whole training step: forward, loss, reverse pass and update."""
    return _step(graph, registry, options, losses, updates, _updating(updates, options))


def adding_plan(
    graph: Graph,
    registry: Registry,
    options: CompileOptions,
    *,
    losses: Mapping[str, Sequence[LossTerm]],
    updates: UpdateSettings,
) -> Plan:
    """The verified plan of a step that adds gradients to their slots, for a later update."""
    states = partial(update, updates=UpdateSettings())
    passes = (
        Pass("accumulate", "The gradients are added to their slots.", add_up, needed=True),
        Pass("update", "The new states of layers are written.", states, needed=True),
    )
    return _step(graph, registry, options, losses, updates, passes)


def _step(
    graph: Graph,
    registry: Registry,
    options: CompileOptions,
    losses: Mapping[str, Sequence[LossTerm]],
    updates: UpdateSettings,
    from_gradients: Sequence[Pass],
) -> Plan:
    attach = partial(attach_loss, losses=losses)
    scales = _scales(updates, options)
    of_loss = differentiate_scaled if scales else differentiate
    reverse = partial(of_loss, share=1.0 / updates.accumulate)
    gather = partial(batch_updates, kernels=choose_multi_tensor(registry, options.kernels))
    passes = (
        Pass("loss", "The losses are put on the outputs.", attach, needed=True),
        *_forward_passes(registry, options, training=True),
        Pass("differentiate", "The reverse pass is added.", reverse, needed=True),
        *from_gradients,
        Pass(
            "batch_updates",
            "On a GPU one call casts all parameters, and one call makes all updates of a rule.",
            gather,
        ),
        *((_SKIP,) if scales else ()),
        *_SIMPLIFY,
        *((_STORE,) if options.saved_dtype is not None else ()),
        *((_bound(options),) if options.memory is not None else ()),
        _IN_PLACE,
    )
    return _plan(graph, passes, options)


def _scales(updates: UpdateSettings, options: CompileOptions) -> bool:
    """Whether the loss is scaled: gradients in float16 can become 0 or infinite without it."""
    return updates.optimizer is not None and options.target.narrow == "float16"


def _updating(updates: UpdateSettings, options: CompileOptions) -> tuple[Pass, ...]:
    """The passes from gradients to new weights that the settings request."""
    found: list[Pass] = []
    counter = update_counter(updates)
    if updates.optimizer is not None:
        if updates.accumulate > 1:
            found.append(
                Pass("accumulate", "The gradients of earlier steps are added.", total, needed=True)
            )
        if _scales(updates, options):
            found.append(
                Pass(
                    "unscale", "The gradients are divided by the loss scale.", unscale, needed=True
                )
            )
            counter = DONE
        if (norm := updates.clip_grad_norm) is not None:
            clipped = partial(clip, max_norm=norm)
            found.append(
                Pass("clip", "All gradients are scaled down to a norm.", clipped, needed=True)
            )
    optimize = partial(update, updates=updates, counter=counter)
    found.append(Pass("update", "The optimizer updates each parameter.", optimize, needed=True))
    if updates.optimizer is not None and (decay := updates.ema) is not None:
        follow = partial(ema, decay=decay, counter=update_counter(updates))
        found.append(Pass("ema", "Averages of the parameters are updated.", follow, needed=True))
    return tuple(found)


_SIMPLIFY = (
    Pass("dead_code", "Calls whose results nobody reads are removed.", dead_code, exact=True),
    Pass(
        "common_subexpressions",
        "Calls that compute the same become one.",
        common_subexpressions,
        exact=True,
    ),
)
_SKIP = Pass(
    "skip", "A step with a gradient that is not finite updates nothing.", skip, needed=True
)
_STORE = Pass(
    "store_bfloat16",
    "Values that wait for the reverse pass are stored in bfloat16.",
    partial(store_bfloat16, dtype="bfloat16"),
)
_IN_PLACE = Pass(
    "in_place", "Results are written over values that nothing needs any more.", in_place, exact=True
)


def _bound(options: CompileOptions) -> Pass:
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

    return Pass(
        "recompute", "Values that do not fit into memory are computed again.", bounded, exact=True
    )


def _forward_passes(
    registry: Registry, options: CompileOptions, *, training: bool
) -> tuple[Pass, ...]:
    chosen = choose(registry, options.kernels)
    fits = chosen if "fusion" not in options.without else single(chosen)

    plain: list[Container[str]] = [Everywhere()] if "block_layout" in options.without else []

    def place(graph: Graph, kernels: tuple[Entry, ...]) -> Graph:
        # Both passes use the result of the first: the calls keep their names.
        if not plain:
            plain.append(plain_calls(graph, kernels=fits, registry=registry))
        return substitute(graph, kernels=kernels, registry=registry, plain=plain[0])

    casts: list[Pass] = []
    if (narrow := options.target.narrow) is not None:
        lower = partial(mixed_precision, compute=narrow)
        summary = f"Values are cast to {narrow} where layers compute in it."
        casts.append(Pass("mixed_precision", summary, lower))

    return (
        *casts,
        Pass(
            "fusion",
            "One kernel takes the place of several layers.",
            partial(place, kernels=fused(chosen)),
            settled=False,
        ),
        Pass(
            "select_kernels",
            "A kernel takes the place of each layer that is left.",
            partial(place, kernels=single(chosen)),
            settled=False,
        ),
        Pass(
            "block_layout",
            "Pixels are stored in the order that matrix products read them.",
            partial(block_layout, packed_inputs=training),
        ),
    )


def _plan(graph: Graph, passes: Sequence[Pass], options: CompileOptions) -> Plan:
    graph, changes = run(graph, passes, without=options.without, check=_check)
    plan = replace(schedule(graph), changes=changes)
    verify(graph, plan)
    return plan


def _check(step: Pass, before: Graph, after: Graph, settled: Graph | None) -> None:
    """Raise PlanError if the result of a pass fails the checks that apply after this pass."""
    if after is before:
        return
    if step.exact:
        verify_rewrite(before, after)
    if step.settled:
        verify_graph(after, since=settled)

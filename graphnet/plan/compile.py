"""Compiler: from a description to a verified plan, pass by pass.

Inference:  affine, precision, fusion, kernels, layout, inference, dead, duplicates, constants, in_place.
Training:   loss, precision, fusion, kernels, layout, differentiate, accumulate, unscale, clip,
            update, average, together, skip, dead, duplicates, keep, recompute, in_place.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphnet.description import LossTerm, ModelDescription, UpdateSettings
from graphnet.graph import DONE, Graph, aliases, build, no_overwrites, predicted_seconds
from graphnet.passes import (
    Everywhere,
    Pass,
    Stopwatch,
    add_up,
    attach_loss,
    autotune,
    batch_updates,
    block_layout,
    check_names,
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
from graphnet.system import open_cache, parse_bytes

PASSES = (
    "loss",
    "affine",
    "precision",
    "autotune",
    "fusion",
    "kernels",
    "layout",
    "inference",
    "differentiate",
    "accumulate",
    "unscale",
    "clip",
    "update",
    "average",
    "together",
    "skip",
    "dead",
    "duplicates",
    "constants",
    "keep",
    "recompute",
    "in_place",
)
"""The names of all passes; a plan is made by those that it needs."""


def forward_graph(
    description: ModelDescription,
    registry: Registry,
    shapes: Sequence[Sequence[int]],
    options: CompileOptions,
) -> Graph:
    """The forward graph for these input shapes, as the description has it."""
    specs = [Spec(tuple(shape), options.dtype, options.device) for shape in shapes]
    return build(description, registry, inputs=specs, dtype=options.dtype)


def inference_plan(graph: Graph, registry: Registry, options: CompileOptions) -> Plan:
    """The verified plan that computes a forward graph's outputs only."""
    passes = (
        Pass("affine", "put scale and shift of channels into the layer before", fold_affine),
        *_forward_passes(registry, options, training=False),
        Pass("inference", "keep what outputs need; forward by inference", inference, needed=True),
        *_SIMPLIFY,
        Pass("constants", "compute ahead what reads weights alone", hoist_constants, exact=True),
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
    """The verified plan of a whole step: forward, loss, reverse pass and update."""
    return _step(graph, registry, options, losses, updates, _updating(updates, options))


def adding_plan(
    graph: Graph,
    registry: Registry,
    options: CompileOptions,
    *,
    losses: Mapping[str, Sequence[LossTerm]],
    updates: UpdateSettings,
) -> Plan:
    """The verified plan of a step that only adds up gradients for a later one (`accumulate`)."""
    states = partial(update, updates=UpdateSettings())
    passes = (
        Pass("accumulate", "add gradients to their slots", add_up, needed=True),
        Pass("update", "write the new states", states, needed=True),
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
        Pass("loss", "put the losses on the outputs", attach, needed=True),
        *_forward_passes(registry, options, training=True),
        Pass("differentiate", "add the reverse pass", reverse, needed=True),
        *from_gradients,
        Pass("together", "cast and update all parameters at once on a GPU", gather),
        *((_SKIP,) if scales else ()),
        *_SIMPLIFY,
        *((_KEEP,) if options.keep is not None else ()),
        *((_bound(options),) if options.memory is not None else ()),
        _IN_PLACE,
    )
    return _plan(graph, passes, options)


def _scales(updates: UpdateSettings, options: CompileOptions) -> bool:
    """Whether gradients are too small for the dtype that they are computed in, or too large."""
    return updates.optimizer is not None and options.narrow == "float16"


def _updating(updates: UpdateSettings, options: CompileOptions) -> tuple[Pass, ...]:
    """The passes from gradients to new weights: those that are asked for."""
    found: list[Pass] = []
    counter = update_counter(updates)
    if updates.optimizer is not None:
        if updates.accumulate > 1:
            found.append(Pass("accumulate", "add what earlier steps left", total, needed=True))
        if _scales(updates, options):
            found.append(Pass("unscale", "undo the scale of the loss", unscale, needed=True))
            counter = DONE
        if (norm := updates.clip_grad_norm) is not None:
            clipped = partial(clip, max_norm=norm)
            found.append(Pass("clip", "scale gradients down to a norm", clipped, needed=True))
    optimize = partial(update, updates=updates, counter=counter)
    found.append(Pass("update", "let the optimizer walk the parameters", optimize, needed=True))
    if updates.optimizer is not None and (decay := updates.ema) is not None:
        follow = partial(ema, decay=decay, counter=update_counter(updates))
        found.append(Pass("average", "let averages follow the weights", follow, needed=True))
    return tuple(found)


_SIMPLIFY = (
    Pass("dead", "drop what nobody reads", dead_code, exact=True),
    Pass("duplicates", "compute the same thing once", common_subexpressions, exact=True),
)
_SKIP = Pass("skip", "leave weights alone where a gradient is not finite", skip, needed=True)
_KEEP = Pass(
    "keep",
    "hold in bfloat16 what waits for the reverse pass",
    partial(store_bfloat16, dtype="bfloat16"),
)
_IN_PLACE = Pass("in_place", "write over what nothing needs any more", in_place, exact=True)


def _bound(options: CompileOptions) -> Pass:
    """The pass that meets the memory budget by computing values again."""
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

    return Pass("recompute", "compute again what would not fit", bounded, exact=True)


def _forward_passes(
    registry: Registry, options: CompileOptions, *, training: bool
) -> tuple[Pass, ...]:
    chosen = choose(registry, options.kernels)
    fits = chosen if "fusion" not in options.without else single(chosen)

    plain: list[Container[str]] = [Everywhere()] if "layout" in options.without else []

    def place(graph: Graph, kernels: tuple[Entry, ...]) -> Graph:
        # What the first of the two passes finds holds for the other too: calls keep their names.
        if not plain:
            plain.append(plain_calls(graph, kernels=fits, registry=registry))
        return substitute(graph, kernels=kernels, registry=registry, plain=plain[0])

    casts: list[Pass] = []
    if (narrow := options.narrow) is not None:
        lower = partial(mixed_precision, compute=narrow)
        casts.append(Pass("precision", f"cast to {narrow} where layers compute in it", lower))

    def tune(graph: Graph) -> Graph:
        watch = Stopwatch(graph.values, open_cache(), training=training)
        return autotune(graph, kernels=fits, registry=registry, seconds=watch)

    tuning = Pass("autotune", "time the kernels that fit; refuse the slower ones", tune)
    return (
        *casts,
        *((tuning,) if options.autotune else ()),
        Pass(
            "fusion",
            "one kernel for several layers",
            partial(place, kernels=fused(chosen)),
            settled=False,
        ),
        Pass(
            "kernels",
            "the fastest kernel that fits",
            partial(place, kernels=single(chosen)),
            settled=False,
        ),
        Pass(
            "layout",
            "pixels in the order of the matrix products",
            partial(block_layout, packed_inputs=training),
        ),
    )


def _plan(graph: Graph, passes: Sequence[Pass], options: CompileOptions) -> Plan:
    check_names(options.without, PASSES)
    graph = replace(graph, refused=options.refused)
    graph, changes = run(graph, passes, without=options.without, check=_check)
    refused = tuple(sorted(graph.refused))
    plan = replace(schedule(graph), changes=changes, refused=refused)
    verify(graph, plan)
    return plan


def _check(step: Pass, before: Graph, after: Graph, settled: Graph | None) -> None:
    """Raise PlanError unless the pass left a graph that is right as far as can be said after it."""
    if after is before:
        return
    if step.exact:
        verify_rewrite(before, after)
    if step.settled:
        verify_graph(after, since=settled)

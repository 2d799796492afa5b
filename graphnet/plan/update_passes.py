"""Update passes: the passes between the reverse pass and the new weights, as the settings of updates ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from graphnet.description import UpdateSettings
from graphnet.graph import Graph
from graphnet.passes import (
    DONE,
    MicroBatches,
    add_parts,
    average_states,
    clip,
    data_parallel,
    ema,
    gather_parameters,
    report,
    shardings,
    share_outputs,
    total,
    unscale,
    update,
    update_counter,
)
from graphnet.plan.options import CompileOptions
from graphnet.sdk import Pass, Processes


def update_passes(
    updates: UpdateSettings, options: CompileOptions, parts: MicroBatches, processes: Processes
) -> tuple[Pass[Graph], ...]:
    """The passes from gradients to new weights; without an optimizer, only new states are written."""
    counter = update_counter(updates)

    def exchange(graph: Graph) -> Graph:
        divided = shardings(graph, updates=updates, processes=processes, pieces=parts.total)
        return data_parallel(graph, processes=processes, shardings=divided)

    def optimize(graph: Graph) -> Graph:
        scaled = is_scaled(updates, options)
        updated = update(graph, updates=updates, counter=DONE if scaled else counter)
        gathered = gather_parameters(updated, processes=processes)
        return average_states(share_outputs(gathered, processes=processes), processes=processes)

    of_gradients: tuple[tuple[bool, str, str, Callable[[Graph], Graph]], ...] = (
        (
            updates.accumulate > 1,
            "accumulate",
            "The gradients of earlier steps are added.",
            total,
        ),
        (
            parts.count > 1,
            "add_parts",
            "The gradients of the micro-batches are added up.",
            add_parts,
        ),
        (
            processes.count > 1 or updates.shard is not None,
            "data_parallel",
            "The gradients are added up over all processes.",
            exchange,
        ),
        (
            is_scaled(updates, options),
            "unscale",
            "The gradients are divided by the loss scale.",
            partial(unscale, processes=processes),
        ),
        (
            bool(updates.report),
            "report",
            _REPORT,
            partial(report, wanted=updates.report, processes=processes),
        ),
        (
            updates.clip_grad_norm is not None,
            "clip",
            "All gradients are scaled down to a norm.",
            partial(clip, max_norm=updates.clip_grad_norm or 1.0, processes=processes),
        ),
    )
    found = [
        adding_pass(name, summary, run, needed=True)
        for wanted, name, summary, run in of_gradients
        if wanted and updates.optimizer is not None
    ]
    summary = "The optimizer updates each parameter."
    found.append(adding_pass("update", summary, optimize, needed=True))
    if updates.optimizer is not None and (decay := updates.ema) is not None:
        follow = partial(ema, decay=decay, counter=counter)
        summary = "Averages of the parameters are updated."
        found.append(adding_pass("ema", summary, follow, needed=True))
    return tuple(found)


_REPORT = "The step also returns each loss, or the norm of the gradients."


def reports(wanted: Sequence[str]) -> tuple[Pass[Graph], ...]:
    """The pass that adds outputs after the loss, if any are wanted."""
    run = partial(report, wanted=wanted)
    return (adding_pass("report", _REPORT, run, needed=True),) if wanted else ()


def is_scaled(updates: UpdateSettings, options: CompileOptions) -> bool:
    """Whether the loss is scaled: gradients in float16 can become 0 or infinite without it."""
    return updates.optimizer is not None and options.target.narrow == "float16"


def adding_pass(
    name: str,
    summary: str,
    run: Callable[[Graph], Graph],
    *,
    needed: bool = False,
    settled: bool = True,
) -> Pass[Graph]:
    """A pass after which the graph computes more, or something else, than before."""
    return Pass(run, summary, name=name, needed=needed, exact=False, settled=settled)

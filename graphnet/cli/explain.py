"""graphnet explain: the plan of a model as a table, a page, JSON, Python source or a list of passes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import click

from graphnet.cli import compile_options, json_text, make_options
from graphnet.cli.options import input_shapes, on_every_output
from graphnet.errors import InputError
from graphnet.graph import load_machine, machine_path, stated_machine
from graphnet.inspection import WIDTH, Heading, breakdown, page, time_steps, to_data
from graphnet.inspection import explain as explain_text
from graphnet.inspection import passes as passes_text
from graphnet.model import Model
from graphnet.plan import Plan
from graphnet.plan import source as source_text
from graphnet.system import cache_folder, write_text


@click.command(short_help="Show the plan of a model, step by step.")
@click.argument("model", type=click.Path(path_type=Path))
@input_shapes
@click.option(
    "--training", is_flag=True, help="Show a training step: forward, loss, reverse, update."
)
@click.option(
    "--loss",
    help="The loss of the training step, on every output; by default the first registered one.",
)
@click.option("--optimizer", help="The optimizer of the training step; by default sgd.")
@compile_options(device="cpu")
@click.option("--source", is_flag=True, help="Print the plan as a Python file that runs by itself.")
@click.option("--passes", is_flag=True, help="List the compiler's passes and what each changed.")
@click.option("--measure", is_flag=True, help="Measure each step's time on random data.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write an HTML page with the graph, the memory and the table.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    model: Path,
    shapes: list[tuple[int, ...]],
    training: bool,
    loss: str | None,
    optimizer: str | None,
    options: Mapping[str, object],
    source: bool,
    passes: bool,
    measure: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show the steps that MODEL (a model file or a saved model) runs on inputs of a shape.

    A row shows a step's node and layer, the layout and shapes of its results, the bytes that it reads and
    writes, its floating-point operations, the memory in use, the least time by the machine's numbers (see
    `graphnet machine`), the values that it frees, and the steps of the reverse pass that read its results.
    Without --training, --memory cuts the image into tiles.
    """
    loaded = Model.load(model)
    of_training = {"--optimizer": optimizer, "--saved-dtype": options.get("saved_dtype")}
    if not training:
        _refuse({"--loss": loss, **of_training}, "give this together with --training")
    if source + passes + (html is not None) > 1:
        raise InputError("--source, --passes and --html show different things: give one of them")
    if source or passes:
        _refuse({"--measure": measure}, "it times the steps of the table and the page")
    if source:
        _refuse({"--json": as_json}, "--source prints Python")
    chosen = make_options(options)
    texts = ["x".join(map(str, shape)) for shape in shapes]
    if chosen.memory is not None and not training:
        tiling = loaded.tiling(*shapes, options=chosen)
        click.echo(f"{tiling}\n", err=as_json or source)
        shapes = [tiling.plan.values[tiling.plan.inputs[0]].spec.shape]
        chosen = replace(chosen, memory=None)
    rule = None
    if training:
        entry = loaded.registry.find("optimizers", optimizer or "sgd").value
        rule = entry(lr=1.0) if "lr" in entry.required() else entry()
    plan = loaded.plan(
        *shapes,
        loss=on_every_output(loss, loaded) if training else None,
        optimizer=rule,
        options=chosen,
    )
    if source:
        click.echo(source_text(plan), nl=False)
    elif passes:
        changes = plan.changes
        click.echo(json_text([asdict(c) for c in changes]) if as_json else passes_text(changes))
    else:
        heading = Heading(loaded.description.name, texts, chosen.target.precision, training)
        _show(plan, heading, measure=measure, html=html, as_json=as_json)


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """Raise InputError if any of these options is given."""
    if given := [name for name, value in options.items() if value]:
        raise InputError(f"{', '.join(given)}: {reason}")


def _show(plan: Plan, heading: Heading, *, measure: bool, html: Path | None, as_json: bool) -> None:
    """Print the plan as a table or as JSON, or write it as a page."""
    device = plan.device
    machine = load_machine(machine_path(device, cache_folder())) or stated_machine(device)
    timing = time_steps(plan) if measure else None
    data = to_data(breakdown(plan, machine), timing=timing) if html or as_json else {}
    if html:
        write_text(html, page(data, heading))
        click.echo(f"wrote {html}: open it in a browser", err=True)
    if as_json:
        click.echo(json_text(data))
    elif not html:
        width = min(max(shutil.get_terminal_size((WIDTH, 24)).columns, 100), 220)
        click.echo(explain_text(plan, machine=machine, timing=timing, width=width))

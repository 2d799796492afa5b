"""graphnet explain: the plan of a model in several forms, or the gradients of one training step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphnet.cli import compile_options, flag, json_text, make_options
from graphnet.errors import DataError, InputError
from graphnet.graph import load_machine, machine_path, stated_machine
from graphnet.inspection import WIDTH, Heading, breakdown, device_of, page, time_steps, to_data
from graphnet.inspection import explain as explain_text
from graphnet.inspection import passes as passes_text
from graphnet.model import Model
from graphnet.plan import CompileOptions, Plan
from graphnet.plan import source as source_text
from graphnet.system import cache_folder, write_text

if TYPE_CHECKING:
    from torch import Tensor

_AS_DESCRIBED = ("device", "kernels")  # the options that --gradients takes


def parse_shape(text: str) -> tuple[int, ...]:
    """ "32x3x32x32" as numbers. Raises InputError for anything else.

    >>> parse_shape("1x3x8x8")
    (1, 3, 8, 8)
    """
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--input: expected a shape such as 32x3x32x32, found {text!r}")
    return tuple(int(part) for part in parts)


@click.command(short_help="Show the plan of a model, or its gradients.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="NxCxHxW",
    help="Shape of an input, one each.",
)
@click.option(
    "--training", is_flag=True, help="The whole training step: forward, loss, reverse, update."
)
@click.option(
    "--loss",
    help="The loss of the training step, on every output; else the first one registered.",
)
@click.option("--optimizer", help="The optimizer of the training step; else sgd.")
@compile_options(device="cpu")
@click.option("--source", is_flag=True, help="Print the plan as a Python file that runs by itself.")
@click.option("--passes", is_flag=True, help="List the compiler's passes and what each changed.")
@click.option("--measure", is_flag=True, help="Run it on random data; show each step's time.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a page to look at in a browser, offline: graph, memory, table.",
)
@click.option(
    "--gradients", is_flag=True, help="Run one step: the norm of every parameter and gradient."
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NAME",
    help="With --gradients: the paths by which a node's, parameter's or value's gradient comes.",
)
@click.option("--paths", default=16, show_default=True, help="With --node: at most so many paths.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="With --gradients: inputs and targets, in this order; without it they are random.",
)
@click.option("--seed", default=0, show_default=True, help="With --gradients: of random data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def explain(
    model: Path,
    inputs: tuple[str, ...],
    training: bool,
    loss: str | None,
    optimizer: str | None,
    options: Mapping[str, object],
    source: bool,
    passes: bool,
    measure: bool,
    html: Path | None,
    gradients: bool,
    nodes: tuple[str, ...],
    paths: int,
    data: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Show the steps that MODEL (a .yaml or .safetensors file) runs on inputs of a shape.

    For each step: its node, what computes it, layout and shapes of what it makes, bytes read and
    written, floating-point operations, the bytes alive, the least time by the machine's numbers (see
    `graphnet machine`), what it frees, and the steps of the reverse pass that it is kept for. Without
    --training, --memory is met by tiles. With --gradients: run one training step, without its update, and
    show where the gradients come from.
    """
    loaded = Model.load(model)
    shapes = [parse_shape(text) for text in inputs]
    of_training = {"--optimizer": optimizer, "--saved-dtype": options.get("saved_dtype")}
    shown = {"--source": source, "--passes": passes, "--html": html}
    if gradients:
        where = make_options({name: options[name] for name in _AS_DESCRIBED if name in options})
        others = {flag(name): value for name, value in options.items() if name not in _AS_DESCRIBED}
        more = {"--training": training, "--measure": measure, "--optimizer": optimizer, **others}
        _refuse({**shown, **more}, "--gradients runs a step as described, without a plan")
        _gradients(loaded, shapes, loss, where, nodes, paths, data, seed, as_json)
        return
    _refuse({"--node": nodes, "--data": data}, "to be given with --gradients")
    if not training:
        _refuse({"--loss": loss, **of_training}, "to be given with --training")
    if source + passes + (html is not None) > 1:
        raise InputError("--source, --passes and --html show different things: give one of them")
    if source or passes:
        _refuse({"--measure": measure}, "it times the steps of the table and the page")
    if source:
        _refuse({"--json": as_json}, "--source prints Python")
    chosen = make_options(options)
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
        loss=_on_every_output(loss, loaded) if training else None,
        optimizer=rule,
        options=chosen,
    )
    if source:
        click.echo(source_text(plan), nl=False)
    elif passes:
        changes = plan.changes
        click.echo(json_text([asdict(c) for c in changes]) if as_json else passes_text(changes))
    else:
        heading = Heading(loaded.description.name, inputs, chosen.target.precision, training)
        _show(plan, heading, measure=measure, html=html, as_json=as_json)


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """Raise InputError if any of these options is given."""
    if given := [name for name, value in options.items() if value]:
        raise InputError(f"{', '.join(given)}: {reason}")


def _show(plan: Plan, heading: Heading, *, measure: bool, html: Path | None, as_json: bool) -> None:
    """The plan as a table, as JSON or as a page."""
    device = device_of(plan)
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


def _on_every_output(loss: str | None, model: Model) -> dict[str, str]:
    return dict.fromkeys(model.outputs, loss or next(iter(model.registry.losses)))


def _gradients(
    model: Model,
    shapes: list[tuple[int, ...]],
    loss: str | None,
    options: CompileOptions,
    nodes: tuple[str, ...],
    limit: int,
    data: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    from graphnet.inspection import Gradients

    given = _read_arrays(data, shapes) if data else ()
    found = Gradients.of(
        model,
        *shapes,
        loss=_on_every_output(loss, model),
        data=given,
        device=options.target.device,
        kernels=options.kernels,
        seed=seed,
    )
    names = [value for node in nodes for value in found.names(node)]
    if as_json:
        click.echo(json_text(found.to_data(*names, limit=limit)))
    elif names:
        click.echo("\n\n".join(str(found.paths(name, limit=limit)) for name in names))
    else:
        click.echo(str(found))


def _read_arrays(path: Path, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """The arrays of an .npz file, cut to the batch size; uint8 becomes 0..1."""
    import numpy as np
    import torch

    try:
        # Opened here, since numpy leaves the file of a bad zip open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = [torch.from_numpy(file[key]) for key in file.files]
    except Exception as error:  # a reader of damaged data may raise anything
        raise DataError(f"{path}: not an .npz file of plain arrays: {error}") from error
    count = shapes[0][0]
    return [
        array[:count] / 255 if array.dtype == torch.uint8 else array[:count] for array in arrays
    ]

"""graphnet explain: the plan of a model, step by step."""

from __future__ import annotations

from pathlib import Path

import click

from graphnet.errors import InputError
from graphnet.model import Model


def parse_shape(text: str) -> tuple[int, ...]:
    """ "32x3x32x32" as numbers. Raises InputError for anything else.

    >>> parse_shape("1x3x8x8")
    (1, 3, 8, 8)
    """
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--input: expected a shape such as 32x3x32x32, found {text!r}")
    return tuple(int(part) for part in parts)


@click.command(short_help="Show the plan of a model, step by step.")
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
@click.option("--loss", default="mse", show_default=True, help="The loss of the training step.")
@click.option(
    "--optimizer", default="sgd", show_default=True, help="The optimizer of the training step."
)
@click.option(
    "--kernels",
    default="auto",
    show_default=True,
    help="auto, reference, or a namespace of kernels.",
)
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--source", is_flag=True, help="Print the generated Python function instead.")
def explain(
    model: Path,
    inputs: tuple[str, ...],
    training: bool,
    loss: str,
    optimizer: str,
    kernels: str,
    device: str,
    source: bool,
) -> None:
    """Show the steps that MODEL (a .yaml or .safetensors file) runs on inputs of a shape.

    For each step: its node, what computes it, what it makes, the bytes alive, what it reads, frees,
    and keeps for the reverse pass.
    """
    loaded = Model.load(model)
    rule = None
    if training:
        entry = loaded.registry.find("optimizers", optimizer).value
        rule = entry(lr=1.0) if "lr" in entry.required() else entry()
    plan = loaded.plan(
        *(parse_shape(text) for text in inputs),
        loss=loss if training else None,
        optimizer=rule,
        device=device,
        kernels=kernels,
    )
    click.echo(plan.source() if source else str(plan))

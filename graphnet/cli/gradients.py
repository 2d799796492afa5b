"""graphnet gradients: show the gradients of one training step, and the paths that they consist of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from graphnet.cli import compile_options, json_text, make_options
from graphnet.cli.options import input_shapes, on_every_output
from graphnet.errors import DataError, InputError
from graphnet.inspection import Gradients
from graphnet.model import Model


@click.command(short_help="Show each parameter's gradient, and its paths.")
@click.argument("model", type=click.Path(path_type=Path))
@input_shapes
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NAME",
    help="Show the paths of the gradient of this node, parameter or value.",
)
@click.option("--paths", type=int, help="With --node: the largest number of paths.  [default: 16]")
@click.option("--loss", help="The loss, on every output; by default the first registered one.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="The inputs, then the targets; by default they are random.",
)
@click.option("--seed", default=0, show_default=True, help="The seed of random data.")
@compile_options("device", "kernels", device="cpu")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gradients(
    model: Path,
    shapes: list[tuple[int, ...]],
    nodes: tuple[str, ...],
    paths: int | None,
    loss: str | None,
    data: Path | None,
    seed: int,
    options: Mapping[str, object],
    as_json: bool,
) -> None:
    """Run one training step of MODEL (a model file or a saved model), without its update.

    A row shows a parameter's norm, the norm of its gradient, their ratio, and the number of uses whose
    gradients are summed.
    """
    if paths is not None and not nodes:
        raise InputError("--paths: give this together with --node")
    loaded = Model.load(model)
    chosen = make_options(options)
    found = Gradients.of(
        loaded,
        *shapes,
        loss=on_every_output(loss, loaded),
        data=_read_arrays(data, shapes[0][0]) if data else (),
        device=chosen.target.device,
        kernels=chosen.kernels,
        seed=seed,
    )
    limit = 16 if paths is None else paths
    names = [value for node in nodes for value in found.names(node)]
    if as_json:
        click.echo(json_text(found.to_data(*names, limit=limit)))
    elif names:
        click.echo("\n\n".join(str(found.paths(name, limit=limit)) for name in names))
    else:
        click.echo(str(found))


def _read_arrays(path: Path, count: int) -> list[Tensor]:
    """Read the first `count` items of each array of an .npz file; uint8 becomes 0..1."""
    try:
        # The file is opened here, since numpy does not close a file that is not a valid zip file.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = [torch.from_numpy(file[key])[:count] for key in file.files]
    except Exception as error:  # numpy may raise any exception for damaged data
        raise DataError(f"{path}: not an .npz file of plain arrays: {error}") from error
    return [array / 255 if array.dtype == torch.uint8 else array for array in arrays]

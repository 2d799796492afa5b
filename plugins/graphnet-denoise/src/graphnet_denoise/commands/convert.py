"""`graphnet convert-pairs`: convert the course's .pkl files to .npz."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from graphnet.errors import DataError
from graphnet.system import atomic_write
from graphnet_denoise.pairs import as_pairs
from graphnet_denoise.pickled import read_tensors


@click.command("convert-pairs")
@click.argument("source", metavar="IN.pkl", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT.npz", type=click.Path(path_type=Path))
def convert_pairs(source: Path, output: Path) -> None:
    """Convert a .pkl of two tensors (torch.save) to an .npz, without executing anything in it.

    The arrays are called `input` and `target`, in the order of the tuple; every graphnet command
    takes such a file as DATA.
    """
    if output.suffix.lower() != ".npz":
        raise DataError(f"{output}: expected a name that ends in .npz, found {output.suffix!r}.")
    pairs = as_pairs(*read_tensors(source), where=str(source))
    with atomic_write(output) as temporary, temporary.open("wb") as file:
        np.savez(file, input=pairs.inputs.numpy(), target=pairs.targets.numpy())
    click.echo(
        f"{output}: {len(pairs)} pairs {tuple(pairs.inputs.shape[1:])}, {pairs.inputs.dtype}"
    )

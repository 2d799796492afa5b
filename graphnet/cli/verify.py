"""graphnet verify: find damage in models and checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from graphnet.errors import CheckpointError
from graphnet.model import inspect_file
from graphnet.system import bytes_text


@click.command(short_help="Find damage in models and checkpoints.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify(files: tuple[Path, ...]) -> int:
    """Read FILES, which are models or checkpoints, and find any byte that is not as it was written.

    Each file gets a line. The exit status is 1 if a file is damaged, missing, or not a model.
    """
    status = 0
    for path in files:
        try:
            file = inspect_file(path)
        except CheckpointError as error:
            click.echo(f"error: {error}", err=True)
            status = 1
            continue
        size = f"{len(file.tensors)} tensors, {bytes_text(file.size_bytes)}"
        if file.has_digests:
            click.echo(f"{path}: as it was written ({size})")
        else:
            click.echo(
                f"{path}: readable ({size}). It was written without digests, so changed bytes cannot be "
                f"noticed. Load and save the model to add them."
            )
    return status

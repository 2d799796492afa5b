"""The command line's plugin: registers graphnet's own commands and the progress bar by the public hooks."""

from __future__ import annotations

from graphnet.cli.commands import OWN
from graphnet.sdk import Command, Register, hookimpl


@hookimpl
def graphnet_commands(register: Register) -> None:
    for name, (target, help_line) in OWN.items():
        register(name, Command(help_line, target))


@hookimpl
def graphnet_reporters(register: Register) -> None:
    from graphnet.cli.progress import Progress  # rich is not needed before

    register("progress", Progress)

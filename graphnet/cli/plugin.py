"""The command line's plugin: graphnet's own commands, by the same hook as everyone's."""

from __future__ import annotations

from graphnet.cli.commands import OWN
from graphnet.sdk import Command, Register, hookimpl


@hookimpl
def graphnet_commands(register: Register) -> None:
    for name, (target, help_line) in OWN.items():
        register(name, Command(help_line, target))

"""The page of the command line, generated: the help of each command, those of the installed plugins too."""

from __future__ import annotations

from collections.abc import Iterator

import click

from graphnet.cli import graphnet

_WIDTH = 92
_HEAD = """# The command line

Each command prints its help with `--help`. This page holds the same text. On bad input, a command
says what is wrong and exits with status 2; status 1 means that a check failed.
"""


def page() -> str:
    """The help of `graphnet` and of each command below it, as Markdown."""
    parts = [_HEAD]
    for path, command, context in walk(graphnet, "graphnet", None):
        level = "#" * min(len(path.split()) + (1 if " " not in path else 0), 4)
        title = "All commands" if path == "graphnet" else path
        parts.append(f"{level} {title}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts)


def walk(
    command: click.Command, path: str, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """A command and all commands below it, each with the words that call it and its context."""
    name = path.rpartition(" ")[2]
    context = click.Context(
        command, info_name=name, parent=parent, max_content_width=_WIDTH, terminal_width=_WIDTH,
        **command.context_settings,
    )  # fmt: skip
    yield path, command, context
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None, f"{path} lists {below}, which it does not have"
            yield from walk(found, f"{path} {below}", context)

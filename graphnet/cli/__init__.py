"""CLI: the command line, the only room that prints. Commands are imported when they are called.

Arguments come in; text, files and an exit status go out: 0 for success, 1 if a check failed, 2 for bad input
or another error, and 128 plus the number of a signal that ended the command: 130 for Ctrl-C. It imports every
room but builtin.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from graphnet.cli.commands import OWN, table
from graphnet.cli.options import compile_options, flag, input_shapes, make_options
from graphnet.cli.signals import ended_by_signals, raise_again, status_of, stop_requested
from graphnet.cli.streams import tolerant_streams
from graphnet.errors import GraphnetError, GraphnetWarning
from graphnet.system import warn_of_namesake

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "compile_options",
    "flag",
    "graphnet",
    "input_shapes",
    "json_text",
    "main",
    "make_console",
    "make_options",
    "run",
    "stop_requested",
]


class _Commands(click.Group):
    """The built-in commands and those of plugins. A command's code is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*OWN, *sorted(table().commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = table()
        if cmd_name in found.taken:
            click.echo(f"warning: {found.taken[cmd_name]}", err=True)
        if cmd_name in OWN:
            return _imported(OWN[cmd_name][0])
        if cmd_name not in found.commands:
            return None
        listed = found.commands[cmd_name]
        of = f"command {cmd_name!r} of {listed.distribution}"
        try:
            loaded = _imported(listed.target)
        except (Exception, SystemExit) as error:  # the plugin's code, not ours
            raise click.ClickException(
                f"{of} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(loaded, click.Command):
            raise click.ClickException(f"{of} ({listed.target}) is not a click command")
        return loaded

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in OWN.items()])
        owners: dict[str, list[tuple[str, str]]] = {}
        for name, listed in sorted(table().commands.items()):
            owners.setdefault(listed.distribution, []).append((name, listed.help))
        for distribution, rows in owners.items():
            with formatter.section(f"Commands of {distribution}"):
                formatter.write_dl(rows)


def _imported(target: str) -> click.Command:
    """The object that "module:attribute" names."""
    module, _, attribute = target.partition(":")
    found: click.Command = getattr(importlib.import_module(module), attribute)
    raise_again()
    return found


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graphnet-framework", prog_name="graphnet")
def graphnet() -> None:
    """Layers that state their own forward and backward, compiled into one plan."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit; every error is one message on stderr, never a traceback."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", GraphnetWarning)
        warnings.showwarning = _show(warnings.showwarning)
        with tolerant_streams():
            return _run(arguments)


def _show(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Return a showwarning that prints each of graphnet's own warnings as one line, once.

    The filter "once" is not enough: Python forgets it where code below changes the filters for a while.
    """
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, GraphnetWarning):
            if str(message) not in said:
                click.echo(f"warning: {message}", err=True)
            said.add(str(message))
        else:
            otherwise(message, category, *place, **more)

    return show


def _run(arguments: list[str] | None) -> int:
    try:
        with ended_by_signals():
            warn_of_namesake()
            status = graphnet.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("interrupted", err=True)
        return status_of(error)
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except GraphnetError as error:
        return _print_error(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _print_error(f"{place}{error.strerror or error}")
    except MemoryError:
        return _print_error("out of memory. Take a smaller batch or a smaller image.")
    except Exception as error:
        return _unexpected(error)
    return status if isinstance(status, int) else 0


def _print_error(message: str) -> int:
    click.echo(f"error: {message}", err=True)
    return 2


def _unexpected(error: Exception) -> int:
    if type(error).__name__ == "OutOfMemoryError":
        return _print_error("the device is out of memory. Take a smaller batch or a smaller image.")
    if os.environ.get("GRAPHNET_TRACEBACK"):
        raise error
    return _print_error(
        f"unexpected {type(error).__name__}: {error}. This is a fault in graphnet or a plugin; "
        f"GRAPHNET_TRACEBACK=1 shows where."
    )


def json_text(data: Any) -> str:
    """Format plain data as indented JSON."""
    import json

    return json.dumps(data, indent=2, sort_keys=False)


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Make a console of rich that prints each text unchanged.

    By default, rich would replace "[red]" in a name by a colour and ":x:" by a picture, and would break
    lines at the width of the terminal, or after 80 characters in a file. A quiet console prints nothing.
    """
    from rich.console import Console

    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, soft_wrap=True)

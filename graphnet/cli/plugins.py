"""graphnet plugins: list the plugins and the errors of broken ones, or write a new project."""

from __future__ import annotations

from pathlib import Path

import click

from graphnet.cli import json_text
from graphnet.cli.scaffold import write_project
from graphnet.sdk import Plugin, Registry, default_registry


@click.group(
    invoke_without_command=True, short_help="List the plugins; `plugins new NAME` starts one."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List every installed plugin: its version, its status, its registrations, and the error if it is broken.

    GRAPHNET_DISABLE_PLUGINS=a,b leaves out the plugins a and b, GRAPHNET_NO_PLUGINS=1 leaves out all.
    With GRAPHNET_STRICT_PLUGINS=1, a broken plugin is an error.
    """
    if context.invoked_subcommand is not None:
        return
    registry = default_registry()
    if as_json:
        click.echo(json_text([_record(plugin, registry) for plugin in registry.plugins]))
        return
    for plugin in registry.plugins:
        click.echo(f"{plugin.name}  {plugin.status}  ({plugin.distribution} {plugin.version})")
        if plugin.error:
            click.echo(f"    {plugin.error}")
        for kind, names in _added(plugin, registry).items():
            click.echo(f"    {kind}: {', '.join(names)}")


@plugins.command()
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The folder to write to; by default the current one.",
)
def new(name: str, into: Path) -> None:
    """Write an installable project for a plugin called NAME, such as acme-swish, with a first layer.

    The project has the layer, its test, a README and a CI script. Its tests pass.
    """
    folder = write_project(name, into)
    click.echo(f"wrote {folder}; next:\n    pip install -e {folder}\n    pytest {folder}")


def _added(plugin: Plugin, registry: Registry) -> dict[str, list[str]]:
    """Return the names that a plugin registered, by kind."""
    found = {
        kind: [name for name, entry in registry.of_kind(kind).items() if entry.plugin.name == plugin.name
               and entry.plugin.distribution == plugin.distribution]
        for kind in registry.every_kind
    }  # fmt: skip
    return {kind: names for kind, names in found.items() if names and plugin.status == "loaded"}


def _record(plugin: Plugin, registry: Registry) -> dict[str, object]:
    added = _added(plugin, registry)
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "error": plugin.error,
        "hooks": list(plugin.hooks),
        "layers": added.get("layers", []),
        "adds": added,
    }

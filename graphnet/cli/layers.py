"""graphnet layers and graphnet plugins: what is installed."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from graphnet.cli import json_text
from graphnet.definition import summary
from graphnet.registry import default_registry


@click.command(short_help="List the layers that models can use.")
@click.option("--json", "as_json", is_flag=True, help="A list for machines.")
def layers(as_json: bool) -> None:
    """List every registered layer, its configuration and the plugin it comes from."""
    entries = default_registry().layers.values()
    if as_json:
        rows = [
            {
                "name": entry.name,
                "version": entry.version,
                "plugin": entry.plugin.distribution,
                "summary": summary(entry.value),
                "fields": list(entry.value.field_names()),
                "schema": entry.value.schema(),
            }
            for entry in entries
        ]
        click.echo(json_text(rows))
        return
    for entry in entries:
        fields = ", ".join(entry.value.field_names()) or "no fields"
        click.echo(f"{entry.name}  ({entry.plugin.distribution} {entry.plugin.version})")
        click.echo(f"    {summary(entry.value)}\n    {fields}")


@click.command(short_help="List the plugins, and what is wrong with broken ones.")
@click.option("--json", "as_json", is_flag=True, help="A list for machines.")
def plugins(as_json: bool) -> None:
    """List every installed plugin with its version and status."""
    found = default_registry().plugins
    if as_json:
        rows = [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "status": "broken" if plugin.error else "loaded",
                "error": plugin.error,
            }
            for plugin in found
        ]
        click.echo(json_text(rows))
        return
    table = Table("plugin", "distribution", "version", "status")
    for plugin in found:
        status = f"broken: {plugin.error}" if plugin.error else "loaded"
        table.add_row(plugin.name, plugin.distribution, plugin.version, status)
    Console().print(table)

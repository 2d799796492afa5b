"""graphnet layers: list the layers and losses that models can use."""

from __future__ import annotations

import click

from graphnet.cli import json_text
from graphnet.sdk import KINDS, default_registry, summary


@click.command(short_help="List the layers and losses that models can use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def layers(as_json: bool) -> None:
    """List every registered layer and loss, its configuration and the plugin it comes from."""
    registry = default_registry()
    entries = [
        (KINDS[kind].singular, entry)
        for kind in ("layers", "losses")
        for entry in registry.of_kind(kind).values()
    ]
    if as_json:
        rows = [
            {
                "name": entry.name,
                "kind": kind,
                "version": entry.version,
                "plugin": entry.plugin.distribution,
                "summary": summary(entry.value),
                "fields": list(entry.value.field_names()),
                "schema": entry.value.schema(),
            }
            for kind, entry in entries
        ]
        click.echo(json_text(rows))
        return
    for kind, entry in entries:
        fields = ", ".join(entry.value.field_names()) or "no fields"
        click.echo(f"{entry.name}  ({kind}, {entry.plugin.distribution} {entry.plugin.version})")
        click.echo(f"    {summary(entry.value)}\n    {fields}")

"""graphnet check: run the conformance checks on layers, kernels and optimizers."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from graphnet.cli import json_text, make_console
from graphnet.errors import PluginError, UnknownNameError, nearest
from graphnet.sdk import Entry, Registry, default_registry, load_registry
from graphnet.testing import (
    CHECKED_KINDS,
    CHECKS,
    RULE_CHECKS,
    Check,
    Report,
    Status,
    checked_kinds,
    checks_for,
    run_checks,
)

_COLORS = {Status.PASSED: "green", Status.FAILED: "bold red", Status.SKIPPED: "dim"}
Checked = tuple[Registry, list[Entry]]


@click.command(short_help="Check a layer, kernel or optimizer, or all of a module or distribution.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@click.option("--slow", is_flag=True, help="Run the slow check too, of torch's Inductor.")
def check(names: tuple[str, ...], as_json: bool, slow: bool) -> None:
    """Run the conformance checks on a layer, loss, kernel or optimizer.

    NAME is a registered name (acme/swish), or a module or distribution: then everything that it registers
    is checked. The exit status is 1 if a check fails.
    """
    found = [resolve(name) for name in names]
    work = [(registry, entry) for registry, entries in found for entry in entries]
    checks = [c for _, entry in work for c in checks_for(entry.value) if slow or not c.slow]
    reports = []
    with _progress(len(checks)) as advance:
        for registry, entry in work:

            def tell(one: Check[Any], name: str = entry.name) -> None:
                advance(f"{name}: {one.name}")

            report = run_checks(entry.value, registry=registry, slow=slow, progress=tell)
            reports.append(report)
    if as_json:
        click.echo(json_text([_plain(report) for report in reports]))
    else:
        for report in reports:
            _print(report)
    if not all(report.ok for report in reports):
        raise click.exceptions.Exit(1)


def resolve(name: str) -> Checked:
    """Find what a name means: a layer, a kernel, an optimizer, or all of a distribution or module.

    Raises UnknownNameError if it means none of these, PluginError if the module is broken.
    """
    registry = default_registry()
    known = _checkable(registry)
    mine = [
        entry for entry in known if entry.name == name
    ]  # a rule and its kernel may share a name
    mine = mine or [e for e in known if _normal(e.plugin.distribution) == _normal(name)]
    mine = mine or [e for e in known if _inside(e.value.__module__, name)]
    if mine:
        return registry, mine
    if not _importable(name):
        distributions = {entry.plugin.distribution for entry in known}
        raise UnknownNameError(
            f"{name!r} is no {checked_kinds()}, and no distribution or module. "
            f"{nearest(name, {*distributions, *(entry.name for entry in known)})}"
        )
    return _from_module(name)


def _from_module(name: str) -> Checked:
    """Load a module that is not installed as a plugin, but has the hooks of one."""
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the author's code
        raise PluginError(
            f"module {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        registry = load_registry(plugins=[module])
    except PluginError as error:
        raise PluginError(f"module {name!r}: {error}") from error
    entries = [e for e in _checkable(registry) if e.plugin.name == module.__name__]
    if not entries:
        raise PluginError(
            f"module {name!r} registers no {checked_kinds()}. Define graphnet_layers(register) with "
            f"@graphnet.hookimpl in it."
        )
    return registry, entries


def _checkable(registry: Registry) -> list[Entry]:
    return [entry for kind in CHECKED_KINDS for entry in registry.of_kind(kind.name).values()]


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _inside(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _importable(name: str) -> bool:
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    if "" not in sys.path:
        sys.path.insert(0, "")  # finds modules in the working directory, as `python -m` does
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Show a progress bar on stderr while the checks run, if stderr is a terminal."""
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("checking", total=total)
        yield lambda text: progress.update(task, advance=1, description=text)


def _plain(report: Report) -> dict[str, Any]:
    return {
        "layer": report.layer,
        "ok": report.ok,
        "checks": [
            {"check": row.check, "status": str(row.status), "message": row.message}
            for row in report.rows
        ],
    }


def _print(report: Report) -> None:
    checks: list[Check[Any]] = [*CHECKS, *RULE_CHECKS]
    guards = {one.name: one.guards for one in checks}
    table = Table("check", "status", "what it guards, or what is wrong", title=report.layer)
    for row in report.rows:
        color = _COLORS[row.status]
        text = row.message if row.message else guards[row.check]
        table.add_row(row.check, Text(str(row.status), style=color), text)
    console = make_console()
    console.print(table)
    counts = [sum(row.status is status for row in report.rows) for status in Status]
    console.print(f"{report.layer}: {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped")

"""graphnet check: run the conformance checks on layers, kernels and optimizers."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from graphnet.cli import json_text, make_console
from graphnet.errors import PluginError, UnknownNameError, nearest
from graphnet.sdk import Entry, Registry, default_registry, load_registry
from graphnet.system import normalized
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

_COLORS = {
    Status.PASSED: "green",
    Status.FAILED: "bold red",
    Status.SKIPPED: "dim",
    Status.EXPECTED: "yellow",
}
Checked = tuple[Registry, list[Entry]]


@click.command(short_help="Check a layer, kernel or optimizer, or all of a module or distribution.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@click.option("--slow", is_flag=True, help="Also run the slow checks, with torch's Inductor.")
@click.option("-v", "--verbose", is_flag=True, help="Print every check, and what was tried.")
def check(names: tuple[str, ...], as_json: bool, slow: bool, verbose: bool) -> None:
    """Run the conformance checks on a layer, loss, kernel or optimizer.

    NAME is a registered name (acme/swish), or a module or distribution: then everything that it registers
    is checked. One line is printed for each, with what you can rely on; the checks that failed follow below
    it. The exit status is 1 if a check fails.
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
            if verbose:
                _print_all(report)
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
    mine = mine or [e for e in known if normalized(e.plugin.distribution) == normalized(name)]
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
    if not any(member.startswith("graphnet_") for member in vars(module)):
        raise PluginError(
            f"module {name!r} implements no hook, so nothing of it is known to graphnet. "
            f"{_what_to_write(module)}"
        )
    try:
        registry = load_registry(plugins=[module])
    except PluginError as error:
        raise PluginError(f"module {name!r}: {error}") from error
    entries = [e for e in _checkable(registry) if e.plugin.name == module.__name__]
    if not entries:
        raise PluginError(
            f"module {name!r} registers no {checked_kinds()}. {_what_to_write(module)}"
        )
    return registry, entries


def _what_to_write(module: ModuleType) -> str:
    """Return the hooks that register what a module defines; if it defines nothing, say what to define."""
    own = [v for v in vars(module).values() if isinstance(v, type) and _defined_in(v, module)]
    space = module.__name__.partition(".")[0].partition("_")[0].lower()
    hooks = []
    for kind in CHECKED_KINDS:
        lines = [
            f'    register("{space}/{value.__name__.lower()}", {value.__name__})'
            for value in own
            if kind.fits(value)
        ]
        if lines:
            hooks.append("\n".join(["@graphnet.hookimpl", f"def {kind.hook}(register):", *lines]))
    if hooks:
        return "Write in it:\n\n{}".format("\n\n".join(hooks))
    first = CHECKED_KINDS[0]
    return (
        f"It defines {first.expected.replace('a subclass', 'no subclass', 1)} either. Define one, and "
        f"register it in a function {first.hook}(register) below @graphnet.hookimpl."
    )


def _defined_in(value: type, module: ModuleType) -> bool:
    return value.__module__ == module.__name__ and not value.__name__.startswith("_")


def _checkable(registry: Registry) -> list[Entry]:
    return [entry for kind in CHECKED_KINDS for entry in registry.of_kind(kind.name).values()]


def _inside(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _importable(name: str) -> bool:
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    if "" not in sys.path:
        sys.path.insert(0, "")  # finds modules in the working directory, as `python -m` does
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (Exception, SystemExit):  # the author's code: the package around the module fails
        return True


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
        "ran": report.ran,
        "levels": [
            {"level": level.name, "reached": level.reached, "why": level.why}
            for level in report.levels
        ],
        "fields": {
            name: {
                "tried": [repr(value) for value in one.values],
                "refused": [repr(value) for value in one.refused],
                "only_default": one.only_default,
            }
            for name, one in report.fields.items()
        },
        "checks": [
            {"check": row.check, "status": str(row.status), "message": row.message}
            for row in report.rows
        ],
    }


def _guards() -> dict[str, str]:
    checks: list[Check[Any]] = [*CHECKS, *RULE_CHECKS]
    return {one.name: one.guards for one in checks}


def _print(report: Report) -> None:
    """Print one line for a layer, and what failed below it."""
    console = make_console()
    status = Status.PASSED if report.ok else Status.FAILED
    if report.untried:
        status = Status.SKIPPED
    reached = "; ".join(level.name for level in report.levels if level.reached)
    counts = f"{report.ran} of {len(report.rows)} checks ran"
    failed = f", {len(report.failures)} failed" if report.failures else ""
    only = report.only_defaults
    defaults = f"; only at the default: {', '.join(only)}" if only else ""
    line = Text(f"{report.layer}: ")
    line.append(str(status), style=_COLORS[status])
    line.append(f", {counts}{failed}{f'; {reached}' if reached else ''}{defaults}")
    if report.untried:
        line.append(f"; {report.untried}")
    console.print(line)
    guards = _guards()
    for row in report.failures:
        text = "\n".join(part for part in (guards.get(row.check, ""), row.message) if part)
        console.print(Text(f"  {row.check}: ", style=_COLORS[Status.FAILED]), end="")
        console.print(Text(text.replace("\n", "\n    ")))


def _print_all(report: Report) -> None:
    """Print every check of a layer, what was tried, and what the results let one rely on."""
    guards = _guards()
    table = Table("check", "status", "what it guards, or what is wrong", title=report.layer)
    for row in report.rows:
        color = _COLORS[row.status]
        text = row.message if row.message else guards.get(row.check, "")
        table.add_row(row.check, Text(str(row.status), style=color), text)
    console = make_console()
    console.print(table, soft_wrap=False)
    console.print(Text(report.details()))
    for level in report.levels:
        console.print(Text(f"  level {level}"))

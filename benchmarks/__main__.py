"""graphnet beside torch and JAX at their best: `python -m benchmarks [--rows ROW,ROW] [--json FILE]`.

Every contender of a row is warmed up and then timed in turn, round after round, in one process; medians.
Peak memory is measured in a process for each. `python -m benchmarks report FILE` writes the pages that
show a JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from benchmarks import report, rows, table
from benchmarks.measure import BRIEF, FULL, QUICK
from benchmarks.run import Result, estimate_s, run
from graphnet.errors import GraphnetError, UnknownNameError, nearest
from graphnet.system import resolve_device

_WIDE = 200  # characters, where there is no terminal
_QUICK_ROWS = ("a32-train-fp32", rows.OVERHEAD)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", help="some rows, separated by commas; all without it")
    parser.add_argument("--list", action="store_true", help="list the rows and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--quick", action="store_true", help="a few rounds, nothing compiled")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"of rounds for each workload; {FULL.budget_s:.0f} without it, {BRIEF.budget_s:.0f} on CUDA",
    )
    parser.add_argument(
        "--building",
        type=float,
        metavar="SECONDS",
        help="for building the contenders of a workload",
    )
    commands = parser.add_subparsers(dest="command", title="commands")
    report.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        if options.command == "report":
            return report.main(options)
        return _list() if options.list else _measure(options)
    except GraphnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _list() -> int:
    for name in rows.NAMES:
        print(f"{name:26}{rows.describe(name)}")
    return 0


def _measure(options: argparse.Namespace) -> int:
    device = resolve_device(options.device)
    names = _chosen(options.rows, _QUICK_ROWS if options.quick else rows.on(device))
    effort = QUICK if options.quick else BRIEF if device.type == "cuda" else FULL
    if options.seconds:
        effort = replace(effort, budget_s=options.seconds)
    if options.building:
        effort = replace(effort, building_s=options.building)
    progress, output = Console(stderr=True, markup=False), Console(markup=False)
    if not output.is_terminal:
        output = Console(width=_WIDE, markup=False)
    about = estimate_s(names, device=device, effort=effort)
    progress.print(f"{len(names)} rows, about {about / 60:.0f} minutes on two CPU cores")
    with (
        tempfile.TemporaryDirectory() as folder,
        progress.status("beginning", spinner="line") as status,
    ):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/inductor"
        os.environ["GRAPHNET_CACHE"] = f"{folder}/graphnet"

        def say(text: str) -> None:
            status.update(Text(text))
            if not progress.is_terminal:
                progress.print(text, highlight=False, markup=False)

        result: Result = {}
        for result in run(names, device=device, effort=effort, say=say):
            last = table.cells(result["rows"][-1])
            parts = (
                f"{key} {cell}" for key, cell in zip(table.COLUMNS[1:6], last[1:6], strict=True)
            )
            progress.print(f"{last[0]}: {', '.join(parts)}", highlight=False, markup=False)
            if options.json:  # what was measured is there, whatever becomes of the rest
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    facts = "  ".join(f"{key} {value}" for key, value in result["machine"].items())
    output.print(facts, highlight=False, markup=False)
    output.print(table.terminal(result["rows"]))
    for line in table.left_out(result["rows"]):
        output.print(f"left out: {line}", highlight=False, markup=False)
    return 0


def _chosen(text: str | None, default: Sequence[str]) -> tuple[str, ...]:
    """The rows asked for. Raises UnknownNameError for one that is not there."""
    names = tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()
    for name in names:
        if name not in rows.NAMES:
            raise UnknownNameError(f"unknown row {name!r}. {nearest(name, rows.NAMES)}")
    return names or tuple(default)


if __name__ == "__main__":
    raise SystemExit(main())

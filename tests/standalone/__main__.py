"""python -m tests.standalone: each layer and each example, exported and run where torch is alone.

It exports every registered layer in every configuration of the conformance kit, and the examples, computed by
torch's operators and by the layers' own arithmetic, runs them in a process that cannot import graphnet, and
prints a row for each. Status 1: one is wrong.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from graphnet.sdk import default_registry
from tests.standalone.judge import Exports, Judged, Outcome, example, judge_layers
from tests.support.examples import example_models


def show(console: Console, title: str, rows: Sequence[tuple[str, Sequence[Judged]]]) -> bool:
    """Print a table and the reasons below it; return whether nothing is wrong."""
    table = Table("", *Outcome, title=title, title_justify="left")
    total: Counter[Outcome] = Counter()
    for name, found in rows:
        counts = Counter(one.outcome for one in found)
        total += counts
        table.add_row(name, *(str(counts[outcome] or "") for outcome in Outcome))
    table.add_section()
    table.add_row("all", *(str(total[outcome]) for outcome in Outcome))
    console.print(table)
    for _, found in rows:
        for one in found:
            if one.outcome in (Outcome.REFUSED, Outcome.WRONG):
                console.print(f"{one.outcome}: {one.what}: {one.detail}")
    return not total[Outcome.WRONG]


def main() -> int:
    """Print a table for each choice of kernels."""
    width = max(120, Console(markup=False).width)
    console = Console(width=width, highlight=False, markup=False)
    fine = True
    for kernels in ("aten", "reference"):
        with tempfile.TemporaryDirectory() as place:
            rows = list(judge_layers(Path(place), default_registry(), kernels=kernels))
            fine &= show(console, f"Layers, kernels={kernels}", rows)
        with tempfile.TemporaryDirectory() as place:
            exports = Exports(Path(place), kernels)
            for path in example_models():
                exports.add(path.stem, *example(path))
            rows = [(one.what, [one]) for one in exports.run()]
            fine &= show(console, f"Examples, kernels={kernels}", rows)
    return 0 if fine else 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())

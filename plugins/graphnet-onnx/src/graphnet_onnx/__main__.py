"""python -m graphnet_onnx: what can be exported and read, beside onnxruntime and ONNX's own node cases.

It exports every registered layer, in every configuration of the conformance kit, and reads all node cases of
ONNX; it prints a row for each layer and operator, and the reasons of what is refused. The exit status is 1 if
a result is wrong.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from graphnet.sdk import default_registry
from graphnet_onnx.node_cases import compare_node_case, node_cases, readable
from graphnet_onnx.parity import Compared, Outcome, compare_layer

Row = tuple[str, Sequence[Compared]]


def layers() -> Iterator[Row]:
    """Each layer, with its configurations."""
    registry = default_registry()
    for name in registry.layers:
        yield name, list(compare_layer(name, registry))


def operators() -> tuple[Sequence[Row], Mapping[str, int]]:
    """Each operator that has a layer, with its node cases; and the number of cases of the others."""
    rows: dict[str, list[Compared]] = {}
    others: Counter[str] = Counter()
    for name, case in node_cases():
        if readable(name):
            rows.setdefault(name, []).append(compare_node_case(case))
        else:
            others[name] += 1
    return sorted(rows.items()), others


def show(console: Console, title: str, rows: Sequence[Row]) -> bool:
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
    for outcome in (Outcome.REFUSED, Outcome.WRONG):
        for _, found in rows:
            for one in found:
                if one.outcome is outcome:
                    console.print(f"{outcome}: {one.what}: {one.detail}")
    return not total[Outcome.WRONG]


def main() -> int:
    """Print both tables."""
    width = max(120, Console(markup=False).width)
    console = Console(width=width, highlight=False, markup=False)
    fine = show(console, "Layers, exported and run in onnxruntime", list(layers()))
    rows, others = operators()
    fine &= show(console, "ONNX's node cases, read and run by graphnet", rows)
    console.print(
        f"{sum(others.values())} node cases have operators that no layer computes: "
        f"{', '.join(f'{name} {count}' for name, count in sorted(others.items()))}"
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

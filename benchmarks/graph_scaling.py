"""Time from a YAML text to a verified training plan: `python -m benchmarks.graph_scaling`.

Chains of 3x3 convolutions and ReLUs, 5,000 and 10,000 nodes: read, described, built with shapes,
differentiated, scheduled, verified. Each in a process of its own; the median of some runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def measure(nodes: int) -> dict[str, float]:
    """Seconds for each stage, in this process."""
    from graphnet.builtin import SGD
    from graphnet.description import parse_text
    from graphnet.model import Model

    conv = "  - conv2d: {out_channels: 4, kernel_size: 3, padding: 1}\n  - relu\n"
    text = "input: {channels: 4}\nlayers:\n" + conv * (nodes // 2)
    Model({"layers": ["relu"]}).plan((1, 4, 8, 8))  # plugins are loaded once, not timed
    start = time.perf_counter()
    description = parse_text(text)
    read = time.perf_counter()
    model = Model(description)
    expanded = time.perf_counter()
    plan = model.plan((1, 4, 8, 8), loss="mse", optimizer=SGD(lr=1.0))
    planned = time.perf_counter()
    assert len(plan.steps) > 2 * nodes
    return {
        "read_s": read - start,
        "expand_s": expanded - read,
        "plan_s": planned - expanded,
        "total_s": planned - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the medians here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, help="measure this many once, in this process")
    options = parser.parse_args()
    if options.nodes:
        print(json.dumps(measure(options.nodes)))
        return
    rows: dict[int, list[dict[str, float]]] = {5_000: [], 10_000: []}
    for _ in range(options.rounds):
        for nodes, found in rows.items():
            command = [sys.executable, "-m", "benchmarks.graph_scaling", "--nodes", str(nodes)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found.append(json.loads(output))
    print("| nodes | YAML read | unrolled | planned, verified | total |\n|---|---|---|---|---|")
    medians = {}
    for nodes, found in rows.items():
        median = {key: statistics.median(row[key] for row in found) for key in found[0]}
        medians[nodes] = median
        print(
            f"| {nodes:,} | " + " | ".join(f"{seconds:.2f} s" for seconds in median.values()) + " |"
        )
    ratio = statistics.median(
        ten["total_s"] / five["total_s"]
        for five, ten in zip(rows[5_000], rows[10_000], strict=True)
    )
    print(f"\n10,000 nodes take {ratio:.2f} times as long as 5,000 (median of paired rounds)")
    if options.json:
        options.json.write_text(json.dumps({"rows": medians, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Time the command line's start: `python -m benchmarks.startup`.

`graphnet --help` and `graphnet layers`, as they are and with 200 plugins installed, each a layer in a
module of its own. Medians of whole processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODULE = """
import graphnet as gn

class Layer{n}(gn.Layer):
    '''x, elementwise.'''
    factor: float = 1.0
    def forward(self, x):
        return x * self.factor
    def backward(self, grad_y):
        return grad_y * self.factor

@gn.hookimpl
def graphnet_layers(register):
    register("many/layer{n}", Layer{n})
"""


def install(folder: Path, count: int) -> None:
    """Write distributions as an installer leaves them."""
    for n in range(count):
        (folder / f"many{n}.py").write_text(MODULE.format(n=n))
        info = folder / f"many{n}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: many{n}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[graphnet.plugins]\nmany{n} = many{n}\n")


def seconds(arguments: list[str], path: str, rounds: int) -> float:
    """The median wall time of a command."""
    env = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "graphnet", *arguments]
    times = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        if number:  # the first one fills the caches
            times.append(time.perf_counter() - start)
        assert "layers" in arguments or "Commands" in done.stdout
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the medians here")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plugins", type=int, default=200)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), options.plugins)
        print("| command | plugins | median |\n|---|---|---|")
        for count, path in ((0, ""), (options.plugins, folder)):
            for arguments in (["--help"], ["layers"]):
                median = seconds(arguments, path, options.rounds)
                rows.append({"command": arguments[0], "plugins": count, "median_s": median})
                print(f"| graphnet {arguments[0]} | {count} | {median:.2f} s |")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

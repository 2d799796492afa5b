"""Every change of a file in a small training fails once: in the process that `run_with_faults` starts.

For each change and fault, a training runs in a child until the fault ends it. The next one resumes it, or
starts it again if there is no checkpoint, and ends. Then the weights, the optimizer's state and the log must
be those of a training without a fault, and the folder must have no other files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from graphnet.sdk import default_registry
from tests.crash.faults import FAULTS, Ended, Report, in_child
from tests.crash.training import differences, make_pairs, train


def attack(place: Path, every: int) -> dict[str, Any]:
    """Let every such change of a file fail; return what was tried and what went wrong."""
    pairs = place / "pairs.npz"
    make_pairs(pairs)

    def run(folder: Path, **fault: int) -> Ended:
        def work(report: Report) -> None:
            train(folder, pairs, fields={}, report=report)

        return in_child(work, folder, **fault)

    run(place / "warm")  # it compiles kernels
    whole = place / "whole"
    if (ended := run(whole)).error:
        raise SystemExit(f"the training without a fault failed: {ended.error}")
    wrong: list[str] = []
    trials = 0
    for name, fault in FAULTS.items():
        for number in range(0, ended.changes, every):
            trials += 1
            folder = place / f"{name}-{number}"
            again = partial(run, folder)
            found = _trial(run(folder, number=number, fault=fault), again, killed=not fault)
            wrong += [f"{name} at change {number}: {one}" for one in found]
            if not found:
                wrong += [f"{name} at change {number}: {one}" for one in differences(folder, whole)]
    return {"changes": ended.changes, "trials": trials, "wrong": wrong}


def _trial(first: Ended, again: Any, *, killed: bool) -> list[str]:
    """Resume a training after a fault; say what went wrong."""
    found: list[str] = []
    if killed and not first.killed:
        found.append(f"was not killed: {first.error}")
    if first.error and "GraphnetError" not in first.error:
        found.append(first.error)
    if not first.error and not first.killed:
        return found
    second = again()
    if second.error:
        return [*found, f"cannot be resumed: {second.error}"]
    done, begun = ([int(step) for step in one.output] for one in (first, second))
    if done and begun and min(begun) < max(done):
        found.append(f"resumed at step {min(begun)}, and step {max(done)} was saved")
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="only every such change")
    given = parser.parse_args()
    default_registry()  # once, for all children
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(attack(Path(place), given.every)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""All attacks at full size, as the table of docs/reliability.md: `make torture`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.crash.endurance import TRIALS
from tests.crash.faults import run_with_faults

Attack = Callable[[], tuple[str, str, list[str]]]
"""Returns what was done, the result, and what was wrong."""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def each_change() -> tuple[str, str, list[str]]:
    """A fault at each change of a file."""
    found = _result(run_with_faults("tests.crash.each_change"))
    return (
        f"SIGKILL, ENOSPC and EIO at each of {found['changes']} changes of files of a training",
        f"{found['trials']} trainings resumed",
        found["wrong"],
    )


def random_kills() -> tuple[str, str, list[str]]:
    """Kills at random moments."""
    command = [sys.executable, "-m", "tests.crash.kills", "--kills", "200"]
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True)
    found = _result(done)
    return (
        f"SIGKILL and SIGTERM at {found['kills']} random moments",
        f"{found['trainings']} trainings with the bits of undisturbed ones",
        found["wrong"],
    )


def endurance(name: str) -> Attack:
    """One of the trials of long use."""

    def attack() -> tuple[str, str, list[str]]:
        command = [sys.executable, "-m", "tests.crash.endurance", name]
        found = _result(subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True))
        return found["what"], found["result"], found["wrong"]

    return attack


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


ATTACKS: list[Attack] = [each_change, random_kills, *map(endurance, TRIALS)]


def main() -> int:
    failed = 0
    print("| attack | result | faults | minutes |\n|---|---|---:|---:|", flush=True)
    for attack in ATTACKS:
        started = time.monotonic()
        what, result, wrong = attack()
        minutes = (time.monotonic() - started) / 60
        print(f"| {what} | {result} | {len(wrong)} | {minutes:.1f} |", flush=True)
        for one in wrong:
            print(f"  {one}", file=sys.stderr)
        failed += len(wrong)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())

"""All attacks at full size, as the table of docs/reliability.md: `make torture`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.crash.faults import run_with_faults


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
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.crash.kills", "--kills", "200"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = _result(done)
    return (
        f"SIGKILL and SIGTERM at {found['kills']} random moments",
        f"{found['trainings']} trainings with the bits of undisturbed ones",
        found["wrong"],
    )


def _result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


ATTACKS: list[Callable[[], tuple[str, str, list[str]]]] = [each_change, random_kills]


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

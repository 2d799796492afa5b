"""All attacks at full size, as the table of docs/reliability.md: `make torture`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tests.crash.endurance import TRIALS
from tests.crash.faults import run_attack, run_with_faults

Attack = Callable[[], tuple[str, str, list[str]]]
"""An attack returns what it did, the result, and what was wrong."""


def each_change() -> tuple[str, str, list[str]]:
    """A fault at each change of a file."""
    found = run_with_faults("tests.crash.each_change")
    return (
        f"SIGKILL, ENOSPC and EIO at each of {found['changes']} changes of files of a training",
        f"{found['trials']} trainings resumed",
        found["wrong"],
    )


def random_kills() -> tuple[str, str, list[str]]:
    """Kills at random moments."""
    found = run_attack("tests.crash.kills", "--kills", "200")
    return (
        f"SIGKILL and SIGTERM at {found['kills']} random moments",
        f"{found['trainings']} trainings with the bits of undisturbed ones",
        found["wrong"],
    )


def kills_of_one_process() -> tuple[str, str, list[str]]:
    """Kills of one of two processes."""
    found = run_attack("tests.crash.processes", "--kills", "20")
    return (
        f"SIGKILL of one of two processes at {found['kills']} random moments, restarted by torchrun",
        f"{found['steps']} steps with the bits of one process that nobody kills",
        found["wrong"],
    )


def endurance(name: str) -> Attack:
    """One of the trials of long use."""

    def attack() -> tuple[str, str, list[str]]:
        found = run_attack("tests.crash.endurance", name)
        return found["what"], found["result"], found["wrong"]

    return attack


ATTACKS: list[Attack] = [each_change, random_kills, kills_of_one_process, *map(endurance, TRIALS)]


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

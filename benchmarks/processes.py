"""Processes: run a command, and measure its time and the most memory that its process took."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_BETWEEN_S = 0.05  # two looks at the memory


def run(command: Sequence[str], *, quiet: bool = False) -> tuple[float, float]:
    """Run a command on Linux; returns its seconds, and the GiB that its process took at most.

    The memory is the peak of the process's resident set. `ru_maxrss` is not used: it also counts the process
    that starts the command.

    Args:
        command: the program and its arguments.
        quiet: whether its output is dropped.
    """
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None)
    while process.poll() is None:
        peak = _peak_kib(process.pid) or peak
        time.sleep(_BETWEEN_S)
    if process.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - started, peak / 2**20


def _peak_kib(process: int) -> int:
    """The peak of a process; 0 when it has ended."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) if found else 0

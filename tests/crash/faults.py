"""Faults: run code in a child process, and kill the child or let a call fail at a chosen change of a file."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("faults.c")
FAULTS = {"SIGKILL": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
_PRELOADED = "GRAPHNET_TESTS_FAULTS"


def compile_faults(folder: Path) -> Path:
    """Compile faults.c to a library in a folder."""
    library = folder / "faults.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def run_attack(module: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run a module of Python with torch on one thread, since threads do not survive a fork.

    Returns what it prints: a JSON object.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run_with_faults(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module as `run_attack` does, with the library loaded before libc."""
    with tempfile.TemporaryDirectory() as folder:
        library = str(compile_faults(Path(folder)))
        return run_attack(module, *arguments, **{"LD_PRELOAD": library, _PRELOADED: library})


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child process has ended.

    Attributes:
        killed: whether by a fault.
        error: the class and message of the error that ended it; empty if none did.
        output: what it has written to `report`, as lines.
        changes: how many changes of files it has made; -1 if it was killed.
    """

    killed: bool
    error: str
    output: list[str]
    changes: int


Report = Callable[[str], None]


def in_child(
    work: Callable[[Report], None], folder: Path, *, number: int = -1, fault: int = 0
) -> Ended:
    """Run `work` in a fork of this process, which must have no other thread.

    Args:
        work: gets a function that reports a line, also if the child is killed later.
        folder: the changes of files under it are counted.
        number: the change at which the fault happens, from 0; -1 for none.
        fault: an error number; 0 kills the child.
    """
    library = ctypes.CDLL(os.environ[_PRELOADED])
    library.faults_count.restype = ctypes.c_long
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 0
        try:
            os.close(reader)
            arguments = str(folder).encode(), ctypes.c_long(number), fault
            library.faults_arm(*arguments)
            try:
                work(lambda line: _write(writer, f"out {line}"))
            except Exception as error:
                status = 1
                frame = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(frame.filename).name}:{frame.lineno}"
                kinds = ",".join(kind.__name__ for kind in type(error).__mro__)
                _write(writer, f"error {kinds}|{error} ({place})".replace("\n", " "))
            _write(writer, f"changes {library.faults_count()}")
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as file:
        lines = [line.rstrip("\n").partition(" ") for line in file]
    _, status = os.waitpid(child, 0)
    found = {kind: text for kind, _, text in lines if kind != "out"}
    return Ended(
        killed=os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        error=found.get("error", ""),
        output=[text for kind, _, text in lines if kind == "out"],
        changes=int(found.get("changes", -1)),
    )


def _write(descriptor: int, line: str) -> None:
    os.write(descriptor, f"{line}\n".encode())

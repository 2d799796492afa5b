"""Background: compiling in a process of its own, at low priority, while training goes on.

A process and not a thread, because Inductor is mostly Python: a thread would hold the interpreter's lock
that every operator of the running steps needs. The process ends with ours, whatever ends it: it watches a
pipe that only we hold open.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graphnet.errors import CompileError
from graphnet.executors.inductor_compile import Problem, compile_into
from graphnet.executors.to_fx import from_text, to_text
from graphnet.system import Cache, Hit

_REQUEST, _MODULES, _ERRORS = "request", "modules", "errors"
_WORKER = "import sys; from graphnet.executors.background_compile import serve; serve(sys.argv[1])"


@dataclass(frozen=True)
class _Request:
    """What the process is told: a graph, (shape, strides, dtype, device) of its arguments, how to run."""

    text: str
    names: dict[str, Any]
    arguments: list[tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]]
    threads: int


class Compilation:
    """A problem that is being compiled by another process. `finish` hands over what it made."""

    def __init__(self, problem: Problem, cache: Cache, *, modules: tuple[str, ...]) -> None:
        """`modules` are imported first: those of the layers, which may register operators of their own."""
        self.problem = problem
        self.cache = cache
        self.partial = cache.begin()
        arguments = [(tuple(x.shape), x.stride(), x.dtype, x.device) for x in problem.examples]
        request = _Request(*to_text(problem.captured.graph), arguments, torch.get_num_threads())
        try:
            (self.partial / _REQUEST).write_bytes(pickle.dumps(request))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            shutil.rmtree(self.partial, ignore_errors=True)
            raise CompileError(f"the plan cannot be handed to another process: {error}") from error
        (self.partial / _MODULES).write_text("\n".join(modules))
        paths = [path for path in sys.path if path]
        with (self.partial / _ERRORS).open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", _WORKER, str(self.partial)],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(paths),
                    "TORCHINDUCTOR_COMPILE_THREADS": "1",
                },
                start_new_session=True,  # Ctrl-C is for us; we end it
            )
        self._end = weakref.finalize(self, _end, self.process, self.partial)

    def ready(self) -> bool:
        """Whether the process has ended, well or not."""
        return self.process.poll() is not None

    def finish(self) -> Hit:
        """Wait for the process and put its work into the cache. Raises CompileError if it failed."""
        status = self.process.wait()
        try:
            if status != 0:
                lines = (self.partial / _ERRORS).read_text(errors="replace").strip().splitlines()
                cause = lines[-1] if lines else "it said nothing"
                raise CompileError(
                    f"the process that compiled the plan ended with status {status}: {cause}"
                )
            for name in (_REQUEST, _MODULES, _ERRORS):
                (self.partial / name).unlink()
            return Hit(self.cache.keep(self.problem.key, self.partial))
        finally:
            self._end()


def _end(process: subprocess.Popen[Any], partial: Path) -> None:
    if process.poll() is None:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)  # its C++ compiler too
        process.wait()
    if process.stdin:
        process.stdin.close()
    shutil.rmtree(partial, ignore_errors=True)


def serve(folder: str) -> None:
    """The other process: compile what stands in `folder`/request into `folder`/compiled."""

    def end_with_our_parent() -> None:
        os.read(0, 1)  # returns when the other end of the pipe is gone
        if sys.platform == "win32":
            os._exit(1)
        os.killpg(os.getpgrp(), signal.SIGKILL)  # with the C++ compiler that we may have started

    threading.Thread(target=end_with_our_parent, daemon=True).start()
    if sys.platform != "win32":
        os.nice(10)
    path = Path(folder)
    for module in (path / _MODULES).read_text().split():
        with contextlib.suppress(ImportError):  # a notebook's own; if it matters, the graph says so
            importlib.import_module(module)
    request: _Request = pickle.loads((path / _REQUEST).read_bytes())
    torch.set_num_threads(request.threads)
    examples = [
        torch.empty_strided(shape, strides, dtype=dtype, device=device)
        for shape, strides, dtype, device in request.arguments
    ]
    graph = from_text(request.text, request.names, examples)
    compile_into(path / "compiled", graph, examples)

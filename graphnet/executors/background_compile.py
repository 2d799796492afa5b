"""Background compilation: another process, at low priority, compiles a plan while training continues.

It is a process and not a thread because Inductor is mostly Python: a thread would hold the interpreter's
lock (GIL), which every operator of the running steps needs. The compiling process reads from a pipe that
only the training process keeps open, so it ends when the training process ends for any reason.
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
from graphnet.executors.inductor_compile import CompileJob, compile_into
from graphnet.executors.to_fx import from_text, to_text
from graphnet.system import Cache, Hit

_REQUEST, _MODULES, _ERRORS = "request", "modules", "errors"
_WORKER = "import sys; from graphnet.executors.background_compile import serve; serve(sys.argv[1])"


@dataclass(frozen=True)
class _Request:
    """What the process compiles: a graph as text, and (shape, strides, dtype, device) of its arguments."""

    text: str
    names: dict[str, Any]
    arguments: list[tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]]
    threads: int


class Compilation:
    """A plan that another process is compiling. `finish` waits for the result.

    Args:
        job: what to compile.
        cache: where the compiled plan is stored.
        modules: the modules of the plan's layers; the process imports them first, as they may register
            operators.

    Raises:
        CompileError: the graph cannot be sent to another process.
    """

    def __init__(self, job: CompileJob, cache: Cache, *, modules: tuple[str, ...]) -> None:
        self.job = job
        self.cache = cache
        self.partial = cache.begin()
        arguments = [(tuple(x.shape), x.stride(), x.dtype, x.device) for x in job.examples]
        request = _Request(*to_text(job.captured.graph), arguments, torch.get_num_threads())
        try:
            (self.partial / _REQUEST).write_bytes(pickle.dumps(request))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            shutil.rmtree(self.partial, ignore_errors=True)
            raise CompileError(f"the plan cannot be sent to another process: {error}") from error
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
                start_new_session=True,  # Ctrl-C then reaches the training process only
            )
        self._end = weakref.finalize(self, _end, self.process, self.partial)

    def ready(self) -> bool:
        """Return whether the process has ended, with success or with an error."""
        return self.process.poll() is not None

    def finish(self) -> Hit:
        """Wait for the process, and store the compiled plan in the cache.

        Raises:
            CompileError: the process failed; the message holds the last line that it printed.
        """
        status = self.process.wait()
        try:
            if status != 0:
                lines = (self.partial / _ERRORS).read_text(errors="replace").strip().splitlines()
                cause = lines[-1] if lines else "it printed no message"
                raise CompileError(
                    f"the process that compiled the plan ended with status {status}: {cause}"
                )
            for name in (_REQUEST, _MODULES, _ERRORS):
                (self.partial / name).unlink()
            return Hit(self.cache.keep(self.job.key, self.partial))
        finally:
            self._end()


def _end(process: subprocess.Popen[Any], partial: Path) -> None:
    if process.poll() is None:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)  # the C++ compiler that it started, too
        process.wait()
    if process.stdin:
        process.stdin.close()
    shutil.rmtree(partial, ignore_errors=True)


def serve(folder: str) -> None:
    """Run in the other process: compile the graph in `folder`/request into `folder`/compiled."""

    def end_with_parent() -> None:
        os.read(0, 1)  # returns when the training process has closed its end of the pipe
        if sys.platform == "win32":
            os._exit(1)
        os.killpg(os.getpgrp(), signal.SIGKILL)  # this process, and a C++ compiler that it started

    threading.Thread(target=end_with_parent, daemon=True).start()
    if sys.platform != "win32":
        os.nice(10)
    path = Path(folder)
    for module in (path / _MODULES).read_text().split():
        # A module of a notebook cannot be imported here. If the graph needs it, from_text fails.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    request: _Request = pickle.loads((path / _REQUEST).read_bytes())
    torch.set_num_threads(request.threads)
    examples = [
        torch.empty_strided(shape, strides, dtype=dtype, device=device)
        for shape, strides, dtype, device in request.arguments
    ]
    graph = from_text(request.text, request.names, examples)
    compile_into(path / "compiled", graph, examples)

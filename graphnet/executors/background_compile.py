"""Background compilation: another process, at low priority, compiles a plan while training continues.

It is a process and not a thread because Inductor is mostly Python: a thread would hold the interpreter's
lock (GIL), which every operator of the running steps needs. The compiling process reads from a pipe that
only the training process keeps open, so it ends when the training process ends for any reason.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel
from torch import Tensor

from graphnet.errors import CompileError
from graphnet.executors.inductor_compile import CompileJob, compile_into
from graphnet.executors.to_fx import from_text, to_text
from graphnet.sdk import dtype_name
from graphnet.system import Cache, Hit

_REQUEST, _ERRORS = "request.json", "errors"
_WORKER = "import sys; from graphnet.executors.background_compile import serve; serve(sys.argv[1])"


class _Argument(BaseModel):
    """A tensor that the compiled plan takes."""

    shape: list[int]
    strides: list[int]
    dtype: str
    device: str

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        dtype, device = dtype_name(tensor.dtype), str(tensor.device)
        return cls(
            shape=list(tensor.shape), strides=list(tensor.stride()), dtype=dtype, device=device
        )

    def empty(self) -> Tensor:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return torch.empty_strided(self.shape, self.strides, dtype=dtype, device=self.device)


class _Request(BaseModel):
    """What the process compiles.

    Attributes:
        text: a graph, as `to_text` writes it.
        names: the global names in it.
        arguments: those of the graph.
        threads: the number of torch's threads.
        modules: the modules of the plan's layers, which may register operators.
    """

    text: str
    names: dict[str, list[str]]
    arguments: list[_Argument]
    threads: int
    modules: list[str]


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
        text, names = to_text(job.captured.graph)
        request = _Request(
            text=text,
            names=names,
            arguments=[_Argument.of(example) for example in job.examples],
            threads=torch.get_num_threads(),
            modules=list(modules),
        )
        self.partial = cache.begin()
        (self.partial / _REQUEST).write_text(request.model_dump_json(), encoding="utf-8")
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
            for name in (_REQUEST, _ERRORS):
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
    text = (path / _REQUEST).read_text(encoding="utf-8")
    request = _Request.model_validate_json(text)
    for module in request.modules:
        # A module of a notebook cannot be imported here. If the graph needs it, from_text fails.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    torch.set_num_threads(request.threads)
    examples = [argument.empty() for argument in request.arguments]
    graph = from_text(request.text, request.names, examples)
    compile_into(path / "compiled", graph, examples)

"""Native: C++ beside a plugin's kernels, compiled for this machine once and kept in the cache.

    LIBRARY = Native(Path(__file__).with_name("halved.cpp"))

    @classmethod
    def match(cls, site):
        return cls() if LIBRARY.usable() else None

    ...
    LIBRARY.call("halved", x, y, x.numel())  # for float32 what the file exports as
    # extern "C" void halved_float32(const float* x, float* y, int64_t n)

The file sees tensors as pointers; it includes the C++ standard library, <omp.h> and headers beside it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from graphnet.errors import CacheError, CompileError, LayerError
from graphnet.system.cache import Hit, Key, open_cache
from graphnet.system.device import processor

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast"),
    *("-fopenmp", "-fPIC", "-shared"),
)
_COMPILERS = ("g++", "clang++")
_MACOS_COMPILERS = (*_COMPILERS, "c++")


@dataclass(frozen=True, slots=True)
class Native:
    """A C++ file. Nothing is compiled until a function of it is needed; equal files are compiled once."""

    source: Path

    def usable(self) -> bool:
        """Whether `load` works here: it tries. A kernel's `match` asks this last."""
        return not self.problem()

    def problem(self) -> str:
        """Why `load` does not work here, in words; nothing where it does."""
        return _outcome(self.source)[1]

    def call(
        self, name: str, first: Tensor, *arguments: Tensor | int | Sequence[int] | None
    ) -> None:
        """Call `name`_`dtype`, such as halved_float32, for the dtype of the first tensor.

        Tensors and None arrive as pointers, numbers as int64_t, several as const int64_t*. Shapes and strides
        are the caller's business. Raises LayerError where the file exports no function for the dtype, or a
        tensor is not on the CPU.
        """
        dtype = str(first.dtype).removeprefix("torch.")
        given = (first, *arguments)
        if any(isinstance(one, Tensor) and one.device.type != "cpu" for one in given):
            raise LayerError(f"{self.source.name}: {name} takes tensors on the CPU only")
        try:
            function = getattr(self.load(), f"{name}_{dtype}")
        except AttributeError:
            raise LayerError(f"{self.source.name} exports no {name}_{dtype}") from None
        function(*map(_as_c, given))

    def load(self) -> ctypes.CDLL:
        """The compiled library.

        Raises CompileError without a compiler or when it refuses, and when the cache cannot be used.
        """
        library, problem = _outcome(self.source)
        if library is None:
            raise CompileError(problem)
        return library


def _as_c(argument: Tensor | int | Sequence[int] | None) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return None if argument is None else (ctypes.c_int64 * len(argument))(*argument)


@functools.cache
def _outcome(source: Path) -> tuple[ctypes.CDLL | None, str]:
    try:
        return ctypes.CDLL(str(_compiled(source))), ""
    except (CompileError, CacheError, OSError) as error:
        return None, f"{source.name}: {error}"


def _compiled(source: Path) -> Path:
    """The shared library of a source file, from the cache or compiled now."""
    compiler = find_compiler("it", otherwise="use other kernels")
    key: Key = {
        "model": f"native {source.stem}",
        "source": hashlib.sha256(_text(source)).hexdigest(),
        "compiler": _run([*compiler, "--version"]).partition("\n")[0],
        "flags": " ".join(FLAGS),
        "processor": processor(),
    }
    cache = open_cache()
    found = cache.find(key)
    name = f"{source.stem}.so"
    if isinstance(found, Hit):
        return found.folder / name
    partial = cache.begin()
    try:
        _run([*compiler, *FLAGS, str(source), "-o", str(partial / "compiled" / name)])
        return cache.keep(key, partial) / name
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _text(source: Path) -> bytes:
    """The file and the headers beside it, which it may include."""
    return b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))


def _run(command: list[str]) -> str:
    """What a command prints. Raises CompileError, with the first line that names an error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        cause = next((line for line in lines if "error" in line), lines[0])
        raise CompileError(f"{command[0]} cannot compile it: {cause}")
    return done.stdout


def find_compiler(user: str, *, otherwise: str) -> list[str]:
    """The C++ compiler as the beginning of a command: CXX if it is set, else the first one there is.

    Raises CompileError where there is none, which says that `user` needs it and what to do `otherwise`.
    """
    named = os.environ.get("CXX")
    names = {"win32": ("cl",), "darwin": _MACOS_COMPILERS}.get(sys.platform, _COMPILERS)
    commands = [shlex.split(named)] if named else [[name] for name in names]
    for command in commands:
        if shutil.which(command[0]):
            return command
    looked = f"CXX={named}" if named else f"{' and '.join(names)} (CXX is not set)"
    raise CompileError(
        f"{user} needs a C++ compiler to compile for the CPU: looked for {looked}, found none. Install one "
        f"(apt install g++), set CXX to one, or {otherwise}."
    )

"""Native: a C++ file of a plugin's kernels, compiled once for this machine and stored in the cache.

    LIBRARY = Native(Path(__file__).with_name("halved.cpp"))

    @classmethod
    def match(cls, site):
        return cls() if LIBRARY.usable() else None

    ...
    LIBRARY.call("halved", x, y, x.numel())  # where x is float32 it calls
    # extern "C" void halved_float32(const float* x, float* y, int64_t n)

The C++ functions get tensors as pointers. The file may include the C++ standard library, <omp.h> and
headers from its own folder.
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
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from graphnet.errors import CacheError, CompileError, LayerError, NativeWarning
from graphnet.system.cache import Hit, Key, open_cache
from graphnet.system.device import processor

if TYPE_CHECKING:
    from torch import Tensor

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast"),
    *("-fopenmp", "-fPIC", "-shared"),
)
_COMPILERS = ("g++", "clang++")
_MACOS_COMPILERS = (*_COMPILERS, "c++")


@dataclass(frozen=True, slots=True)
class Native:
    """A C++ file, compiled when it is first used. Files with equal text are compiled once.

    Args:
        source: the path of the C++ file.

    Raises:
        CompileError: there is no such file, as where a wheel was built without it.

    >>> Native(Path("absent.cpp"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    graphnet.errors.CompileError: absent.cpp: no such file. ...
    """

    source: Path

    def __post_init__(self) -> None:
        if not self.source.is_file():
            raise CompileError(
                f"{self.source}: no such file. If the package was installed, its wheel lacks the file: "
                f"list it in [tool.setuptools.package-data] of the package's pyproject.toml."
            )

    def usable(self) -> bool:
        """Return whether the file can be compiled and loaded here; if not, a NativeWarning says why, once.

        The first call compiles it, so a kernel's `match` should check everything else before.
        """
        if problem := self.problem():
            _warn(problem)
        return not problem

    def problem(self) -> str:
        """Say why the file cannot be compiled or loaded here; an empty text if it can."""
        return _load(self.source)[1]

    def call(
        self, name: str, first: Tensor, *arguments: Tensor | int | Sequence[int] | None
    ) -> None:
        """Call the C++ function `name`_`dtype`, such as halved_float32.

        The caller checks shapes and strides: the C++ function sees pointers only.

        Args:
            name: the function's name without its dtype.
            first: a tensor on the CPU; its dtype selects the function.
            arguments: a tensor or None becomes a pointer, an int an int64_t, several ints a const int64_t*.

        Raises:
            LayerError: the file exports no function for this dtype, or a tensor is not on the CPU.
            CompileError: the file cannot be compiled or loaded.
        """
        dtype = str(first.dtype).removeprefix("torch.")
        given = (first, *arguments)
        if any(_is_tensor(one) and one.device.type != "cpu" for one in given):
            raise LayerError(f"{self.source.name}: {name} takes tensors on the CPU only")
        try:
            function = getattr(self.load(), f"{name}_{dtype}")
        except AttributeError:
            raise LayerError(f"{self.source.name} exports no {name}_{dtype}") from None
        function(*map(_as_c, given))

    def load(self) -> ctypes.CDLL:
        """Compile the file if needed, and load the library.

        Raises:
            CompileError: there is no compiler, it rejects the file, or the cache cannot be used.
        """
        library, problem = _load(self.source)
        if library is None:
            raise CompileError(problem)
        return library


def _is_tensor(argument: Tensor | int | Sequence[int] | None) -> TypeGuard[Tensor]:
    return not (argument is None or isinstance(argument, (int, Sequence)))


def _as_c(argument: Tensor | int | Sequence[int] | None) -> Any:
    if _is_tensor(argument):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return None if argument is None else (ctypes.c_int64 * len(argument))(*argument)


@functools.cache
def _warn(problem: str) -> None:
    warnings.warn(
        f"C++ kernels cannot be used, slower ones run: {problem}", NativeWarning, stacklevel=3
    )


@functools.cache
def _load(source: Path) -> tuple[ctypes.CDLL | None, str]:
    """Return the loaded library, or None and the reason why there is none."""
    try:
        return _compiled(source), ""
    except (CompileError, CacheError, OSError) as error:
        return None, str(error)


def _compiled(source: Path) -> ctypes.CDLL:
    """Load the shared library, from the cache or compiled now."""
    compiler = find_compiler("a kernel in C++", otherwise="use other kernels")
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
        try:
            return ctypes.CDLL(str(found.folder / name))
        except OSError as error:  # made by another linker or for another system: compile it again
            cache.reject(key, str(error))
    partial = cache.begin()
    try:
        made = partial / "compiled" / name
        _run([*compiler, *FLAGS, str(source), "-o", str(made)])
        try:
            library = ctypes.CDLL(str(made))
        except OSError as error:
            raise CompileError(
                f"{compiler[0]} reported success, but its library cannot be loaded: {error}"
            ) from None
        cache.keep(key, partial)
        return library
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _text(source: Path) -> bytes:
    """Return the text of the file and of all headers in its folder, which it may include."""
    return b"".join(path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h"))))


def _run(command: list[str]) -> str:
    """Run a command and return what it prints. A CompileError quotes the first line with "error"."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except (OSError, ValueError) as error:  # it is no program; or a part has the character NUL
        raise CompileError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        cause = next((line for line in lines if "error" in line), lines[0])
        raise CompileError(f"{command[0]} failed: {cause}")
    return done.stdout


def find_compiler(user: str, *, otherwise: str) -> list[str]:
    """Find the C++ compiler: the one that CXX names, else the first usual one that is installed.

    Args:
        user: what needs the compiler, for the error message.
        otherwise: what the user can do without a compiler, for the error message.

    Returns:
        The beginning of a command line, such as ["ccache", "g++"].

    Raises:
        CompileError: no compiler was found.
    """
    named = os.environ.get("CXX")
    names = {"win32": ("cl",), "darwin": _MACOS_COMPILERS}.get(sys.platform, _COMPILERS)
    try:
        commands = [shlex.split(named)] if named else [[name] for name in names]
    except ValueError as error:
        raise CompileError(f"CXX={named}: not a command: {error}. Set CXX to a compiler.") from None
    for command in commands:
        if command and shutil.which(command[0]):
            return command
    looked = f"CXX={named}" if named else f"{' and '.join(names)} (CXX is not set)"
    raise CompileError(
        f"{user} needs a C++ compiler to compile for the CPU: looked for {looked}, found none. Install one "
        f"(apt install g++), set CXX to one, or {otherwise}."
    )

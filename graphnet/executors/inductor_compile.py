"""Compilation: a captured plan through Inductor, into the cache and out of it.

Inductor gets the whole graph at once through `torch._inductor.standalone_compile`, which starts faster
and costs less per call than torch.compile; where that is missing or refuses, torch.compile(fullgraph=True)
takes the same graph, without the cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from graphnet.errors import CompileError
from graphnet.executors.to_fx import Captured, capture, fingerprint
from graphnet.graph import Value
from graphnet.plan import Plan
from graphnet.system import Cache, Hit, Key, Miss, find_compiler, open_cache, processor

Artifact = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be compiled: the captured plan, examples of its arguments, and its key in the cache.

    The first `inputs` of the arguments come anew at each step, the others are always the same tensors.
    """

    captured: Captured
    examples: tuple[Tensor, ...]
    key: Key
    inputs: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled plan. Inputs in other strides than it was compiled for are copied first.

    `how` says in words where it came from.
    """

    artifact: Artifact
    strides: tuple[tuple[int, ...], ...]
    constants: tuple[Tensor, ...]
    how: str

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        given = list(arguments)
        for position, strides in enumerate(self.strides):
            x = given[position]
            if x.stride() != strides:
                copy = torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device)
                given[position] = copy.copy_(x)
        return tuple(self.artifact(*given, *self.constants))


def pose(plan: Plan, arguments: Sequence[Tensor]) -> Problem:
    """Capture a plan for arguments like these. Raises LayerError where that cannot be done."""
    examples = tuple(
        _example(tensor, plan.values[name] if name in plan.inputs else None)
        for name, tensor in zip(plan.arguments, arguments, strict=True)
    )
    captured = capture(plan, examples)
    device = arguments[0].device
    key = {
        "model": _model(plan),
        "operations": fingerprint(captured),
        "arguments": {
            plan.values[name].label: _words(x)
            for name, x in zip(plan.arguments, examples, strict=True)
        },
        "device": device_words(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "compiler settings": torch._inductor.config.get_hash().hex()[:16],
        "matrix products": torch.get_float32_matmul_precision(),
    }
    return Problem(captured, examples + captured.constants, key, len(plan.inputs))


def compile_problem(problem: Problem) -> Compiled:
    """Take the plan from the cache or compile it here and now.

    Raises CompileError without a compiler, or when it refuses; CacheError when the cache cannot be used.
    """
    cache = open_cache()
    started = time.perf_counter()
    found = cache.find(problem.key)
    if isinstance(found, Hit):
        loaded = load(cache, problem, found, "taken from the cache")
        if isinstance(loaded, Compiled):
            return loaded
        found = loaded
    require_compiler(problem.examples[0].device)
    partial = cache.begin()
    try:
        try:
            artifact: Artifact = compile_into(
                partial / "compiled", problem.captured.graph, problem.examples
            )
        except (ImportError, AttributeError, TypeError, RuntimeError, AssertionError) as error:
            artifact = _by_torch_compile(problem, error)
            refused = (
                f"standalone_compile refused ({_first_line(error)}): torch.compile took the plan"
            )
            return _compiled(artifact, problem, f"{refused}, and it is not cached")
        cache.keep(problem.key, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    elapsed_s = time.perf_counter() - started
    return _compiled(artifact, problem, f"compiled in {elapsed_s:.1f} s: {found.reason}")


def load(cache: Cache, problem: Problem, hit: Hit, origin: str) -> Compiled | Miss:
    """Load a cached plan; one that cannot be loaded is removed and becomes a Miss.

    `origin` says where it came from, in words.
    """
    started = time.perf_counter()
    try:
        with _quiet():
            from torch._inductor.standalone_compile import CompiledArtifact

            artifact = CompiledArtifact.load(path=str(hit.folder), format="unpacked")
    except Exception as error:  # whatever another version or a bad disk left there
        return cache.reject(problem.key, _first_line(error))
    elapsed_s = time.perf_counter() - started
    return _compiled(artifact, problem, f"{origin} in {elapsed_s:.1f} s")


def compile_into(folder: Path, graph: GraphModule, examples: Sequence[Tensor]) -> Artifact:
    """Compile a graph; the compiler keeps all that it makes in `folder`."""
    from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

    with _quiet(), temporary_cache_dir(str(folder)), torch.no_grad():
        return torch._inductor.standalone_compile(
            graph, list(examples), dynamic_shapes="from_example_inputs"
        )


def require_compiler(device: torch.device) -> None:
    """Raise CompileError unless the compiler that Inductor needs for this device is there."""
    if device.type != "cpu":
        if importlib.util.find_spec("triton") is None:
            raise CompileError(
                f"Inductor needs Triton to compile for {device}, and it is not installed. "
                f"Install it (pip install triton), or use the executor eager."
            )
        return
    find_compiler("Inductor", otherwise="use the executor eager")


def versions() -> dict[str, str]:
    """What compiled code depends on, by name. What plugins compute is in the captured operators."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def device_words(device: torch.device) -> str:
    """The machine that code is compiled for: what kind of GPU, or which CPU and its vector unit."""
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return f"{torch.cuda.get_device_name(device)} {capability} CUDA {torch.version.cuda}"
    return processor()


def _model(plan: Plan) -> str:
    """A digest of the layers, their configuration and order, without any shape."""
    steps = [
        (call.name, call.title, call.function, sorted(call.layer.configuration().items()))
        for call in (step.call for step in plan.steps)
    ]
    return hashlib.sha256(repr(steps).encode()).hexdigest()[:32]


def _example(tensor: Tensor, given: Value | None) -> Tensor:
    """A tensor of this shape: a slot in its own strides, an input in those that the plan prefers.

    So what is compiled does not depend on the strides that the first inputs happen to have.
    """
    if given is None:
        return torch.empty_like(tensor, memory_format=torch.preserve_format)
    wanted = given.memory_format if tensor.ndim == 4 else None
    return torch.empty_like(tensor, memory_format=wanted or torch.contiguous_format)


def _words(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    strides = "" if tensor.is_contiguous() else f" strides {tuple(tensor.stride())}"
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape}{strides}"


def _compiled(artifact: Artifact, problem: Problem, how: str) -> Compiled:
    strides = tuple(x.stride() for x in problem.examples[: problem.inputs])
    return Compiled(artifact, strides, problem.captured.constants, how)


def _by_torch_compile(problem: Problem, refusal: Exception) -> Artifact:
    function: Any = torch.compile(problem.captured.graph, fullgraph=True, dynamic=False)
    try:
        with _quiet(), torch.no_grad():
            function(*(torch.zeros_like(example) for example in problem.examples))
    except Exception as error:
        raise CompileError(
            f"Inductor refuses the plan: {_first_line(refusal)}; torch.compile: {_first_line(error)}. "
            f"Use the executor eager."
        ) from error
    return function  # type: ignore[no-any-return]


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's compiler uses parts of torch that are deprecated: nothing that our user can change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Compilation: Inductor compiles a captured plan, and the cache stores the result.

`torch._inductor.standalone_compile` compiles the whole graph at once; it starts faster than torch.compile and
its result costs less per call. If it is missing or fails, torch.compile(fullgraph=True) compiles the same
graph, and the result is not cached.
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
from graphnet.executors.inductor_faults import CORRECTIONS, put_in_order, settings
from graphnet.executors.to_fx import Captured, capture, fingerprint
from graphnet.graph import Value
from graphnet.plan import Plan
from graphnet.sdk import Spec
from graphnet.system import Cache, Hit, Key, Miss, find_compiler, open_cache, processor

Artifact = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class CompileJob:
    """A plan to compile.

    Args:
        captured: the operators of the plan.
        examples: tensors with the shapes, strides, dtypes and devices of the arguments.
        key: identifies the compiled plan in the cache.
        inputs: the number of leading arguments that are other tensors at each step; the arguments after them
            are the same tensors at each step.
    """

    captured: Captured
    examples: tuple[Tensor, ...]
    key: Key
    inputs: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled plan. An input with other strides than the compiled code expects is copied first.

    Args:
        artifact: the compiled function.
        strides: the expected strides of each input.
        constants: the tensors of the layers' own, which follow the plan's arguments.
        how: a text that says whether the plan was compiled or loaded, and in how many seconds.
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


def make_job(plan: Plan, arguments: Sequence[Tensor]) -> CompileJob:
    """Capture a plan for arguments of these shapes, strides and dtypes.

    Raises:
        LayerError: a layer's code cannot be captured.
    """
    examples = tuple(
        _example(tensor, plan.values[name] if name in plan.inputs else None)
        for name, tensor in zip(plan.arguments, arguments, strict=True)
    )
    captured = capture(plan, examples)
    put_in_order(captured.graph)
    device = arguments[0].device
    key = {
        "model": _model_digest(plan),
        "operations": fingerprint(captured),
        "arguments": {
            plan.values[name].label: _tensor_text(x)
            for name, x in zip(plan.arguments, examples, strict=True)
        },
        "device": device_text(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "corrections": CORRECTIONS,
        "compiler settings": torch._inductor.config.get_hash().hex()[:16],
        "matrix products": torch.get_float32_matmul_precision(),
    }
    return CompileJob(captured, examples + captured.constants, key, len(plan.inputs))


def compile_job(job: CompileJob) -> Compiled:
    """Load the compiled plan from the cache, or compile it in this process.

    Raises:
        CompileError: there is no compiler, or it rejects the plan.
        CacheError: the cache cannot be used.
    """
    cache = open_cache()
    started = time.perf_counter()
    found = cache.find(job.key)
    if isinstance(found, Hit):
        loaded = load(cache, job, found, "taken from the cache")
        if isinstance(loaded, Compiled):
            return loaded
        found = loaded
    require_compiler(job.examples[0].device)
    partial = cache.begin()
    try:
        try:
            artifact: Artifact = compile_into(
                partial / "compiled", job.captured.graph, job.examples
            )
        except (ImportError, AttributeError, TypeError, RuntimeError, AssertionError) as error:
            artifact = _by_torch_compile(job, error)
            failed = (
                f"standalone_compile failed ({_first_line(error)}): torch.compile compiled the plan"
            )
            return _compiled(artifact, job, f"{failed}, and it is not cached")
        cache.keep(job.key, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    elapsed_s = time.perf_counter() - started
    return _compiled(artifact, job, f"compiled in {elapsed_s:.1f} s: {found.reason}")


def load(cache: Cache, job: CompileJob, hit: Hit, origin: str) -> Compiled | Miss:
    """Load a cached plan; a plan that cannot be loaded is deleted and reported as a Miss.

    Args:
        cache: the cache that holds the plan.
        job: the job that the plan was compiled for.
        hit: the folder of the plan.
        origin: a text for `Compiled.how`, such as "taken from the cache".
    """
    started = time.perf_counter()
    try:
        with _quiet():
            from torch._inductor.standalone_compile import CompiledArtifact

            artifact = CompiledArtifact.load(path=str(hit.folder), format="unpacked")
    except Exception as error:  # the files may be damaged, or of another version of torch
        return cache.reject(job.key, _first_line(error))
    elapsed_s = time.perf_counter() - started
    return _compiled(artifact, job, f"{origin} in {elapsed_s:.1f} s")


def compile_into(folder: Path, graph: GraphModule, examples: Sequence[Tensor]) -> Artifact:
    """Compile a graph; the compiler writes all its files into `folder`.

    Inductor compiles three small files to find out which vector instructions the compiler and the processor
    have. They are compiled before, into Inductor's own cache, which keeps them: it saves 5 s in each process.
    """
    from torch._inductor.cpu_vec_isa import pick_vec_isa
    from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

    with _quiet(), settings(graph):
        if examples[0].device.type == "cpu":
            pick_vec_isa()
        with temporary_cache_dir(str(folder)), torch.no_grad():
            return torch._inductor.standalone_compile(
                graph, list(examples), dynamic_shapes="from_example_inputs"
            )


def require_compiler(device: torch.device) -> None:
    """Raise CompileError unless the compiler that Inductor needs for this device is installed."""
    if device.type != "cpu":
        if importlib.util.find_spec("triton") is None:
            raise CompileError(
                f"Inductor needs Triton to compile for {device}, and it is not installed. "
                f"Install it (pip install triton), or use the executor eager."
            )
        return
    find_compiler("Inductor", otherwise="use the executor eager")


def versions() -> dict[str, str]:
    """Return the versions that compiled code depends on, by name.

    Versions of plugins are not among them: the captured operators hold all that a plugin computes.
    """
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def device_text(device: torch.device) -> str:
    """Describe the hardware that code is compiled for: the GPU's model, or the CPU and its vector unit."""
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return f"{torch.cuda.get_device_name(device)} {capability} CUDA {torch.version.cuda}"
    return processor()


def _model_digest(plan: Plan) -> str:
    """Return a digest of the layers, their configuration and their order; shapes are not part of it."""
    steps = [
        (call.name, call.title, call.function, sorted(call.layer.configuration().items()))
        for call in (step.call for step in plan.steps)
    ]
    return hashlib.sha256(repr(steps).encode()).hexdigest()[:32]


def _example(tensor: Tensor, plan_input: Value | None) -> Tensor:
    """Make a tensor of the same shape: a slot keeps its strides, an input gets those that the plan prefers.

    So the compiled code does not depend on the strides of the inputs of the first step.
    """
    if plan_input is None:
        return torch.empty_like(tensor, memory_format=torch.preserve_format)
    wanted = plan_input.memory_format if tensor.ndim == 4 else None
    return torch.empty_like(tensor, memory_format=wanted or torch.contiguous_format)


def _tensor_text(tensor: Tensor) -> str:
    strides = "" if tensor.is_contiguous() else f" strides {tuple(tensor.stride())}"
    return f"{Spec.of(tensor)}{strides}"


def _compiled(artifact: Artifact, job: CompileJob, how: str) -> Compiled:
    strides = tuple(x.stride() for x in job.examples[: job.inputs])
    return Compiled(artifact, strides, job.captured.constants, how)


def _by_torch_compile(job: CompileJob, failure: Exception) -> Artifact:
    function: Any = torch.compile(job.captured.graph, fullgraph=True, dynamic=False)
    try:
        with _quiet(), settings(job.captured.graph), torch.no_grad():
            function(*(torch.zeros_like(example) for example in job.examples))
    except Exception as error:
        raise CompileError(
            f"Inductor cannot compile the plan: {_first_line(failure)}; torch.compile: {_first_line(error)}. "
            f"Use the executor eager."
        ) from error
    return function  # type: ignore[no-any-return]


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings: torch's compiler calls deprecated parts of torch, and the user cannot change that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

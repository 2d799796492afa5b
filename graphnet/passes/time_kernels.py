"""Time kernels: measure the time of kernels and layers on random data of the graph's shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphnet.graph import Value, flatten, gradient_names, invoke
from graphnet.passes.block_layout import in_blocks
from graphnet.passes.rewrite import spec_of
from graphnet.passes.substitute import Candidate, blocked
from graphnet.sdk import Spec
from graphnet.system import Cache, device_name, synchronize

_ROUNDS = 7
_LONGEST_S = 0.1  # a slow candidate gets fewer rounds


class Stopwatch:
    """Measures the seconds of a candidate; times in the cache, by device and version, are used again.

    With `training` it runs forward and backward, otherwise the method that a prediction runs.
    """

    def __init__(self, values: Mapping[str, Value], cache: Cache, *, training: bool) -> None:
        self.values = values
        self.cache = cache
        self.training = training

    def __call__(self, candidate: Candidate) -> float:
        specs = self.specs(candidate)
        device = next(
            self.values[name].spec.device for name in flatten(dict(candidate.bound).values())
        )
        key = {
            "kernel": self.label(candidate),
            "device": device_name(device),
            "torch": torch.__version__,
        }
        known = self.cache.choice(key)
        if not isinstance(known, float):
            known = self.measure(candidate, specs, device)
            self.cache.record_choice(key, known)
        return known

    def specs(self, candidate: Candidate) -> dict[str, Any]:
        """Argument name -> its spec in memory; an image is in blocks if the candidate takes blocks."""
        stacks = candidate.layer.layouts or {} if in_blocks(candidate.layer) else {}
        return {
            port: blocked(spec_of(arg, self.values), stacks.get(port))
            for port, arg in candidate.bound
        }

    def label(self, candidate: Candidate) -> str:
        """A text that says what is timed; it is the key in the cache."""
        layer = candidate.layer
        asked = ", ".join(f"{port} {spec}" for port, spec in self.specs(candidate).items())
        work = "forward and backward" if self.training else "prediction"
        return f"{work}: {type(layer).__module__}.{layer!r} on {asked}"

    @torch.no_grad()
    def measure(
        self, candidate: Candidate, specs: Mapping[str, Any], device: torch.device
    ) -> float:
        """The seconds of the fastest of a few runs: other work of the machine can only add time."""
        run = self.prepare(candidate, specs, device)
        run()
        times: list[float] = []
        while len(times) < _ROUNDS and sum(times) < _LONGEST_S:
            synchronize(device)
            started = time.perf_counter()
            run()
            synchronize(device)
            times.append(time.perf_counter() - started)
        return min(times)

    def prepare(
        self, candidate: Candidate, specs: Mapping[str, Any], device: torch.device
    ) -> Callable[[], object]:
        """A function without arguments that runs the candidate once."""
        layer = candidate.layer
        formats = layer.memory_formats
        tensors = {
            port: tuple(_random(one, None) for one in spec)
            if isinstance(spec, tuple)
            else _random(spec, formats.get(port))
            for port, spec in specs.items()
        }
        key = torch.zeros(2, dtype=torch.int32, device=device)
        given: dict[str, Any] = {**tensors, "specs": specs, "key": key}
        predicts = not self.training and bool(layer.signature.inference)
        method = "inference" if predicts else "forward"

        def forward() -> tuple[Any, ...]:
            return invoke(layer, method, given)

        if not self.training or not layer.signature.backward:
            return forward
        names = layer.outputs + layer.saves
        grads = {
            f"grad_{name}": torch.ones_like(y)
            for name, y in zip(layer.outputs, forward(), strict=False)
        }
        names_of_gradients = frozenset(gradient_names(layer, specs))
        wanted = names_of_gradients - candidate.data - {*layer.nondifferentiable}

        def both() -> object:
            results = dict(zip(names, forward(), strict=False))
            return invoke(layer, "backward", {**given, **results, **grads, "wanted": wanted})

        return both


def _random(spec: Spec | None, memory_format: torch.memory_format | None) -> Tensor | None:
    """A tensor of this spec: uniform random numbers, or zeros if the dtype is not floating."""
    if spec is None:
        return None
    if not spec.dtype.is_floating_point:
        return torch.zeros(spec.shape, dtype=spec.dtype, device=spec.device)
    drawn = torch.rand(spec.shape, device=spec.device).to(spec.dtype)
    if memory_format is not None and drawn.ndim == 4:
        drawn = drawn.contiguous(memory_format=memory_format)
    return drawn

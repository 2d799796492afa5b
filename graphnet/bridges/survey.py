"""Survey: what a torch.nn.Module is made of, and what it does when it is run once."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.graph import as_tuple
from graphnet.sdk import RESERVED, ParameterSpec, StateSpec


@dataclass(frozen=True)
class Slot:
    """A parameter or buffer: the layer's name for it, the module's path, and where it starts."""

    name: str
    path: str
    kind: str
    start: Tensor

    def spec(self) -> ParameterSpec | StateSpec:
        shape = tuple(self.start.shape)
        if self.kind == "parameter":
            return ParameterSpec(shape, _Start(self.start))
        dtype = None if self.start.is_floating_point() else self.start.dtype
        return StateSpec(shape, _Start(self.start), dtype)


class _Start:
    """An initialiser that copies the module's tensor; equal only to itself."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        return tensor.copy_(self.value)


@dataclass(frozen=True)
class Seen:
    """How many outputs a module returns, which buffers a run changes, and whether it draws numbers."""

    outputs: int
    changed: frozenset[str]
    random: bool


def try_out(
    module: torch.nn.Module, examples: Sequence[Tensor], options: Mapping[str, Any], name: str
) -> Seen:
    """Run a copy in train mode: how many outputs, which buffers change, are numbers drawn?"""
    device = next((t.device for t in module.state_dict().values()), torch.device("cpu"))
    dtype = next((p.dtype for p in module.parameters()), torch.get_default_dtype())
    moved = [x.to(device, dtype if x.is_floating_point() else None) for x in examples]
    trial = copy.deepcopy(module).train()
    before = {path: buffer.clone() for path, buffer in trial.named_buffers()}
    cuda = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(cuda), _inputs_named(name, moved):
        state = torch.get_rng_state(), _cuda_state(device)
        returned = as_tuple(trial(*moved, **options))
        random = not torch.equal(state[0], torch.get_rng_state()) or state[1] != _cuda_state(device)
    kept = [y for y in returned if y is not None]
    if not kept or not all(isinstance(y, Tensor) for y in kept):
        raise InputError(
            f"{name}: {type(module).__name__} must return a tensor or a tuple of tensors, returned "
            f"{', '.join(type(y).__name__ for y in returned)}. Wrap it in a module that does."
        )
    changed = frozenset(p for p, b in trial.named_buffers() if not torch.equal(before[p], b))
    return Seen(len(kept), changed, random)


@contextmanager
def _inputs_named(name: str, inputs: Sequence[Tensor]) -> Iterator[None]:
    """Say which module failed, and on what."""
    try:
        yield
    except Exception as error:
        given = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in inputs)
        raise InputError(
            f"{name}: the module failed on the example inputs {given}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _cuda_state(device: torch.device) -> bytes:
    return torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else b""


def slots_of(module: torch.nn.Module, changed: frozenset[str], *, count: int) -> tuple[Slot, ...]:
    """The module's parameters and buffers, with names that can stand in a signature."""
    taken = {*RESERVED, "self", "x", *(f"x{i}" for i in range(count))}
    found = []
    tensors: Iterable[tuple[str, Tensor]] = (*module.named_parameters(), *module.named_buffers())
    for path, tensor in tensors:
        name = re.sub(r"\W", "_", path)
        name = f"p_{name}" if name[0].isdigit() or name == "y" else name
        while name in taken or name.startswith(("y_", "grad_")):
            name = f"{name}_" if name in taken else f"p_{name}"
        taken.add(name)
        trained = isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad
        kind = "updated" if path in changed else "parameter" if trained else "state"
        found.append(Slot(name, path, kind, tensor.detach().clone()))
    return tuple(found)

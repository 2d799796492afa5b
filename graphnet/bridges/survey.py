"""Survey: list the tensors of a torch.nn.Module, and run it once to see what it returns and changes."""

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
class ModuleTensor:
    """A parameter or buffer of a module.

    Args:
        name: its name in the layer.
        path: its name in the module, such as "0.weight".
        kind: "parameter", "state", or "updated", a buffer that training changes.
        start: a copy of its value, the initial value in the layer.
    """

    name: str
    path: str
    kind: str
    start: Tensor

    def spec(self) -> ParameterSpec | StateSpec:
        """Return the layer's declaration of this tensor."""
        shape = tuple(self.start.shape)
        if self.kind == "parameter":
            return ParameterSpec(shape, _CopyOf(self.start))
        dtype = None if self.start.is_floating_point() else self.start.dtype
        return StateSpec(shape, _CopyOf(self.start), dtype)


class _CopyOf:
    """An initializer that copies a tensor of the module. It is equal only to itself."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        return tensor.copy_(self.value)


@dataclass(frozen=True)
class TrialRun:
    """What one run of a module showed.

    Args:
        outputs: the number of tensors that it returned.
        changed: the paths of the buffers that it changed.
        random: whether it drew random numbers.
    """

    outputs: int
    changed: frozenset[str]
    random: bool


def trial_run(
    module: torch.nn.Module, examples: Sequence[Tensor], options: Mapping[str, Any], name: str
) -> TrialRun:
    """Run a copy of a module once in train mode. The module and torch's random generators stay as they are.

    Args:
        module: the module.
        examples: an example of each input; floating ones get the module's dtype.
        options: keyword arguments for the module's forward.
        name: the layer's name, for the error message.

    Raises:
        InputError: the module fails, or returns something else than tensors.
    """
    device = next((t.device for t in module.state_dict().values()), torch.device("cpu"))
    tensors = (*module.parameters(), *module.buffers())
    floating = (t.dtype for t in tensors if t.is_floating_point())
    dtype = next(floating, torch.get_default_dtype())
    moved = [x.to(device, dtype if x.is_floating_point() else None) for x in examples]
    copied = copy.deepcopy(module).train()
    before = {path: buffer.clone() for path, buffer in copied.named_buffers()}
    cuda = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(cuda), _inputs_named(name, moved):
        state = torch.get_rng_state(), _cuda_state(device)
        returned = as_tuple(copied(*moved, **options))
        random = not torch.equal(state[0], torch.get_rng_state()) or state[1] != _cuda_state(device)
    kept = [y for y in returned if y is not None]
    if not kept or not all(isinstance(y, Tensor) for y in kept):
        raise InputError(
            f"{name}: {type(module).__name__} must return a tensor or a tuple of tensors, returned "
            f"{', '.join(type(y).__name__ for y in returned)}. Wrap it in a module that returns tensors."
        )
    changed = frozenset(p for p, b in copied.named_buffers() if not torch.equal(before[p], b))
    return TrialRun(len(kept), changed, random)


@contextmanager
def _inputs_named(name: str, inputs: Sequence[Tensor]) -> Iterator[None]:
    """Raise InputError, with the layer's name and the inputs' shapes, for any error of the module."""
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


def module_tensors(
    module: torch.nn.Module, changed: frozenset[str], *, count: int
) -> tuple[ModuleTensor, ...]:
    """List a module's parameters and buffers, and give each a name that a Python signature allows.

    Args:
        module: the module.
        changed: the paths of the buffers that training changes.
        count: the number of inputs, whose names are x or x0, x1, ...
    """
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
        found.append(ModuleTensor(name, path, kind, tensor.detach().clone()))
    return tuple(found)

"""Dispatch: record the operators that a call runs, with a dispatch mode of PyTorch."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from graphnet.graph.scratch import scratch_bytes_on_cpu
from graphnet.sdk import scratch_bytes


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator call: the operator, its arguments, and its result."""

    operator: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    returned: Any

    @property
    def tags(self) -> frozenset[str]:
        """The names of torch's tags, such as pointwise or data_dependent_output."""
        return frozenset(tag.name for tag in self.operator.tags)

    def tensors(self) -> Iterator[Tensor]:
        """The tensors that the operator returned."""
        yield from tensors_in(self.returned)

    def __str__(self) -> str:
        return str(self.operator).removesuffix(".default")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        self.operations.append(Operation(func, args, kwargs or {}, returned))
        return returned


def operations_of(call: Callable[[], object]) -> list[Operation]:
    """Run `call` and return the operators that it ran, in order."""
    recorder = _Recorder()
    with recorder:
        call()
    return recorder.operations


class _Allocations(TorchDispatchMode):
    """Counts the bytes of new storages from when an operator makes them until Python frees them."""

    def __init__(self, device_type: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_cpu = device_type == "cpu"
        self.users: Counter[int] = Counter()
        self.alive_bytes = self.peak_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage_of(tensor) for tensor in tensors_in((*args, *(kwargs or {}).values()))}
        returned = func(*args, **(kwargs or {}))
        for tensor in tensors_in(returned):
            storage, size = storage_of(tensor), tensor.untyped_storage().nbytes()
            if storage in given and not self.users[storage]:
                continue  # an argument of the recorded call, or a view of one
            if not self.users[storage]:
                self.alive_bytes += size
            self.users[storage] += 1
            weakref.finalize(tensor, self.drop, storage, size)
        inside = scratch_bytes(func.overloadpacket, args, kwargs)
        if self.on_cpu:
            inside += scratch_bytes_on_cpu(func.overloadpacket, args)
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes + inside)
        return returned

    def drop(self, storage: int, size: int) -> None:
        self.users[storage] -= 1
        if not self.users[storage]:
            self.alive_bytes -= size


def storage_of(tensor: Tensor) -> int:
    """A number that identifies the storage of a tensor."""
    pointer: int = tensor.untyped_storage()._cdata
    return pointer


def peak_bytes_of(call: Callable[[], object], *, device_type: str = "meta") -> int:
    """Run `call` and return the most bytes that its new tensors hold at once, results included.

    With `device_type` "cpu", the work memory of torch's operators on a CPU counts too.

    >>> x = torch.empty(100, device="meta")
    >>> peak_bytes_of(lambda: x.relu().neg())
    800
    """
    allocations = _Allocations(device_type)
    with allocations:
        call()
    return allocations.peak_bytes


def operations_until_failure(call: Callable[[], object]) -> list[Operation]:
    """Run `call`, which may fail, and return the operators that ran before the failure."""
    recorder = _Recorder()
    try:
        with recorder:
            call()
    except Exception:  # the caller reports the failure by another check
        pass
    return recorder.operations


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in the arguments or results of an operator, at every depth of nesting."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def is_mask(index: Any) -> bool:
    """Whether an index is a mask: the number of elements that it selects depends on data."""
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)

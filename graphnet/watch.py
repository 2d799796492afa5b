"""Watch: the operators that a call runs, as PyTorch's dispatcher sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator call: which, on what, and what it returned."""

    operator: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    returned: Any

    @property
    def tags(self) -> frozenset[str]:
        """The names of torch's tags, such as pointwise or data_dependent_output."""
        return frozenset(tag.name for tag in self.operator.tags)

    def tensors(self) -> Iterator[Tensor]:
        """The tensors that it returned."""
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
    """Run `call` and list the operators that ran in it."""
    recorder = _Recorder()
    with recorder:
        call()
    return recorder.operations


def operations_until_failure(call: Callable[[], object]) -> list[Operation]:
    """Run `call`, which may fail, and list the operators that ran until then."""
    recorder = _Recorder()
    try:
        with recorder:
            call()
    except Exception:  # whoever asks reports the failure by another check
        pass
    return recorder.operations


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in an operator's arguments or results, however they are nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def is_mask(index: Any) -> bool:
    """Whether an index selects a number of elements that depends on data."""
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)

"""Meta run: run one call on meta tensors to learn its results and the storages that they share.

The call runs twice, with N C H W strides and with the channels last in memory, because a result can be a view
for one and a copy for the other. Runs are cached by definition, method and specs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphnet.graph.dispatch import storage_of
from graphnet.graph.frozen import FrozenArgument, FrozenTensor, freeze, thaw
from graphnet.graph.invoke import as_tuple, positional
from graphnet.graph.ir import Call, Slot, Value
from graphnet.sdk import Definition, Spec, channels_last


def flat(slots: tuple[Slot, ...]) -> Iterator[str | None]:
    """Yield the results one by one; None for a result that nobody reads."""
    for slot in slots:
        if isinstance(slot, tuple):
            yield from slot
        else:
            yield slot


@dataclass(frozen=True, slots=True)
class Returned:
    """One result: its spec (None if it is no tensor), and the values that it may share storage with.

    `arguments` are positions among the values that the call reads, `results` positions of earlier results.
    `overlaps` is true if two elements have one address. `unsettled` is true if it depends on the strides of
    the arguments with which of them the result shares its storage.
    """

    spec: Spec | None
    arguments: frozenset[int]
    results: tuple[int, ...]
    overlaps: bool
    unsettled: bool


def run_on_meta(call: Call, values: Mapping[str, Value]) -> tuple[Returned, ...]:
    """Run a call on meta tensors; returns all its results, also those that nobody reads.

    Exceptions of the definition's own code are raised unchanged.
    """
    return _run_twice(call.layer, call.function, freeze(call, values))


@functools.lru_cache(maxsize=65536)
def _run_twice(
    layer: Definition, method: str, arguments: tuple[FrozenArgument, ...]
) -> tuple[Returned, ...]:
    plain = _run(layer, method, arguments, _in_order)
    try:
        other = _run(layer, method, arguments, channels_last)
    except Exception:  # in a step it fails on such strides too, so nothing can share storage
        return plain
    return tuple(
        Returned(
            a.spec,
            a.arguments | b.arguments,
            tuple(sorted({*a.results, *b.results})),
            a.overlaps or b.overlaps,
            (a.arguments, a.results) != (b.arguments, b.results),
        )
        for a, b in zip(plain, other, strict=True)
    )


def _run(
    layer: Definition,
    method: str,
    arguments: tuple[FrozenArgument, ...],
    strides: Callable[[Tensor], Tensor],
) -> tuple[Returned, ...]:
    given: list[Tensor] = []

    def tensor(frozen: FrozenTensor) -> Tensor:
        made = frozen.spec.empty()
        given.append(strides(made) if 3 <= made.ndim <= 5 else made)
        return given[-1]

    with torch.no_grad():
        returned = positional(layer, method, thaw(arguments, tensor))
    results = [part for result in returned for part in as_tuple(result)]
    storages = [_storage(tensor) for tensor in given]
    seen: list[Returned] = []
    for position, result in enumerate(results):
        mine = _storage(result)
        seen.append(
            Returned(
                _spec(result),
                frozenset(i for i, storage in enumerate(storages) if mine and storage == mine),
                tuple(i for i in range(position) if mine and _storage(results[i]) == mine),
                isinstance(result, Tensor) and _overlaps(result),
                False,
            )
        )
    return tuple(seen)


def _in_order(tensor: Tensor) -> Tensor:
    """The tensor as it was made: contiguous."""
    return tensor


def _spec(result: Any) -> Spec | None:
    return Spec.of(result) if isinstance(result, Tensor) else None


def _storage(result: Any) -> int:
    """A number that identifies a tensor's storage; 0 if the result is no tensor."""
    return storage_of(result) if isinstance(result, Tensor) else 0


def _overlaps(tensor: Tensor) -> bool:
    """Whether two elements may have the same address, as after `expand`."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += (size - 1) * stride
    return False

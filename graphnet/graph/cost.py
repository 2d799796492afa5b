"""Cost: the floating-point operations and bytes of a call, counted on meta tensors.

The author of a layer declares nothing for this, and no data is read. A multiply-add is 2 operations. Matrix
products and convolutions are counted by torch's formulas. An elementwise operator counts one operation for
each element of its result, a reduction one for each element that it reads, a move or copy none. The bytes are
those of the call's arguments that operators read and of its results, each counted once: no implementation
needs fewer. A view reads and writes nothing, an argument of which an operator uses only the shape is not
read, and a slot that is written in place counts as written.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from graphnet.graph.dispatch import Operation, operations_of, peak_bytes_of, storage_of, tensors_in
from graphnet.graph.frozen import FrozenArgument, FrozenTensor, freeze, thaw
from graphnet.graph.invoke import as_tuple, positional
from graphnet.graph.ir import Call, Value
from graphnet.sdk import Definition

_aten = torch.ops.aten
_MOVES = frozenset(
    {_aten.clone, _aten.copy_, _aten._to_copy, _aten.fill_, _aten.fill, _aten.masked_fill}
    | {_aten.where, _aten.zeros_like, _aten.ones_like, _aten.full_like}
)
# They do one operation for each element that they read; torch has no tag for them.
_ADDS = frozenset({_aten.col2im, _aten.mse_loss, _aten.mse_loss_backward})
_SHAPES = frozenset(  # they use the shape and dtype of a tensor, not its elements
    {_aten.empty_like, _aten.zeros_like, _aten.ones_like, _aten.full_like}
    | {_aten.new_empty, _aten.new_zeros, _aten.new_ones, _aten.new_full, _aten.new_empty_strided}
)
_FILLS = frozenset({_aten.fill_, _aten.zero_, _aten.copy_})  # they write self without reading it


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a call: floating-point operations, bytes read, bytes written.

    `peak_bytes` is the most that the tensors made in the call hold at once, its results included.

    >>> Cost(flops=2, bytes_read=8, bytes_written=4).bytes_moved
    12
    """

    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    peak_bytes: int = field(default=0, compare=False)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            max(self.peak_bytes, other.peak_bytes),
        )

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written together."""
        return self.bytes_read + self.bytes_written

    def __str__(self) -> str:
        return f"{self.flops} FLOPs, {self.bytes_read} bytes read, {self.bytes_written} written"


def call_cost(call: Call, values: Mapping[str, Value]) -> Cost:
    """The cost of one call of a graph; `values` is the graph's table of values.

    Costs are cached by definition, method and specs, so a repeated block is counted once.
    """
    devices = (values[name].spec.device.type for name in (*call.reads(), *call.makes()))
    return _counted(call.layer, call.function, freeze(call, values), next(devices, "cpu"))


@functools.lru_cache(maxsize=65536)
def _counted(
    layer: Definition, method: str, arguments: tuple[FrozenArgument, ...], device_type: str
) -> Cost:
    tensors: dict[int, Tensor] = {}

    def tensor(frozen: FrozenTensor) -> Tensor:
        if frozen.number not in tensors:
            made, stored = frozen.spec.empty(), frozen.memory_format
            if stored is not None and made.ndim == 4:
                made = made.contiguous(memory_format=stored)
            tensors[frozen.number] = made
        return tensors[frozen.number]

    given = thaw(arguments, tensor)

    def run() -> tuple[Any, ...]:
        return positional(layer, method, given)

    cost = count(run, tensors.values())[1]
    return replace(cost, peak_bytes=peak_bytes_of(run, device_type=device_type))


def count(function: Callable[[], Any], given: Iterable[Tensor]) -> tuple[Any, Cost]:
    """Run a function of the meta tensors in `given`; returns its result and its cost.

    >>> x = torch.empty(2, 3, device="meta")
    >>> count(lambda: torch.relu(x), [x])[1]
    Cost(flops=6, bytes_read=24, bytes_written=24, peak_bytes=0)
    """
    returned: list[Any] = []
    with torch.no_grad():
        operations = operations_of(lambda: returned.append(function()))
    arguments = {storage_of(tensor) for tensor in given}
    read, written = _Touched(), _Touched()
    for operation in operations:
        for tensor in _read_by(operation):
            if storage_of(tensor) in arguments:
                read.add(tensor)
        for tensor in _written_in_place(operation):
            if storage_of(tensor) in arguments:
                written.add(tensor)
    for tensor in tensors_in(as_tuple(returned[0])):
        if storage_of(tensor) not in arguments:
            written.add(tensor)
    flops = sum(map(_flops, operations))
    return returned[0], Cost(flops, read.size_bytes, written.size_bytes)


class _Touched:
    """Counts the bytes of tensors; no storage counts more than its own size."""

    def __init__(self) -> None:
        self.seen: set[tuple[object, ...]] = set()
        self.sizes: dict[int, int] = {}
        self.limits: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        storage = storage_of(tensor)
        key = (storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        if key in self.seen:
            return
        self.seen.add(key)
        axes = zip(tensor.shape, tensor.stride(), strict=True)
        elements = math.prod(size for size, stride in axes if stride)  # a broadcast is read once
        self.sizes[storage] = self.sizes.get(storage, 0) + elements * tensor.element_size()
        self.limits[storage] = tensor.untyped_storage().nbytes()

    @property
    def size_bytes(self) -> int:
        return sum(min(size, self.limits[storage]) for storage, size in self.sizes.items())


def _is_view(operation: Operation) -> bool:
    """Whether the results of an operator are views of its arguments."""
    if operation.operator.is_view:
        return True
    made = {storage_of(tensor) for tensor in operation.tensors()}
    given = {storage_of(tensor) for tensor in tensors_in(operation.arguments)}
    return bool(made) and made <= given and not _written_in_place(operation)


def _read_by(operation: Operation) -> list[Tensor]:
    packet = operation.operator._overloadpacket
    if packet in _SHAPES or _is_view(operation):
        return []
    positions = slice(1, None) if packet in _FILLS else slice(None)
    given = (*operation.arguments[positions], *operation.options.values())
    return list(tensors_in(given))


def _written_in_place(operation: Operation) -> list[Tensor]:
    declared = operation.operator._schema.arguments
    positional = zip(declared, operation.arguments, strict=False)
    named = ((one, operation.options.get(one.name)) for one in declared)
    return [
        tensor
        for argument, value in (*positional, *named)
        if argument.alias_info is not None and argument.alias_info.is_write
        for tensor in tensors_in(value)
    ]


def _flops(operation: Operation) -> int:
    packet = operation.operator._overloadpacket
    if packet in flop_registry:
        formula = flop_registry[packet]
        return int(formula(*operation.arguments, **operation.options, out_val=operation.returned))
    if packet in _MOVES or operation.operator.is_view:
        return 0
    made = sum(tensor.numel() for tensor in operation.tensors() if tensor.is_floating_point())
    read = [tensor.numel() for tensor in tensors_in(operation.arguments)]
    tags = operation.tags | {tag.name for tag in _plain(operation).tags}
    if "reduction" in tags or packet in _ADDS:
        return max(read, default=0)
    return made if tags & {"pointwise", "inplace"} and read else 0


def _plain(operation: Operation) -> Any:
    """The overload that returns new tensors; overloads that write into a tensor have fewer tags."""
    packet = operation.operator._overloadpacket
    return packet.default if "default" in packet.overloads() else operation.operator

"""Read the course's .pkl files, two tensors written by torch.save, without executing anything.

Such a file is a zip: a pickle stream that says what to build, and an entry with the raw numbers of each
storage. `pickletools` splits the stream into opcodes. The machine here knows the few opcodes that a tuple of
tensors needs, and three globals, which it never imports. Any other opcode or global is an error that names
it. Sizes, offsets and strides are checked against the storages before numpy gets them.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphnet.errors import DataError
from graphnet_denoise.storages import STORAGES, Storage, Storages

_AXES = 8
_TENSOR = "torch._utils _rebuild_tensor_v2"
_HOOKS = "collections OrderedDict"
_GLOBALS = frozenset({*STORAGES, _TENSOR, _HOOKS})


def read_tensors(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read the two tensors that `torch.save((first, second), path)` wrote, as two separate arrays.

    Raises DataError, which names what was found, for a damaged file, a file of another kind, an opcode or
    global that two tensors do not need, and a tensor that reaches outside its storage.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            match _Machine(Storages(archive, path)).run():
                case (np.ndarray() as first, np.ndarray() as second):
                    return _own(first), _own(second)
                case value:
                    raise DataError(
                        f"{path}: expected a tuple of two tensors, found {_kind(value)}."
                    )
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except MemoryError as error:
        raise DataError(f"{path}: its tensors do not fit into the memory.") from error
    except Exception as error:  # the zip reader and the opcode reader raise a dozen kinds
        raise DataError(
            f"{path}: cannot be read as a file of torch.save "
            f"({str(error) or type(error).__name__}). Expected the zip that torch writes since "
            f"version 1.6; the file is damaged, truncated, older or of another kind."
        ) from error


def _own(view: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous copy in the machine's byte order, so that tensors of one storage are separate."""
    return view.astype(view.dtype.newbyteorder("="), order="C")


def _kind(value: object) -> str:
    match value:
        case tuple():
            return f"a tuple of {len(value)}"
        case np.ndarray():
            return "a single tensor"
    return f"a value of type {type(value).__name__.strip('_')}"


@dataclass(frozen=True, slots=True)
class _Global:
    """A name in the stream, "module name". It is compared, but never imported."""

    name: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """Marks the beginning of a tuple on the stack."""


class _Machine:
    """A pickle machine for tuples of tensors: a stack, a memo, and a method for each opcode."""

    def __init__(self, storages: Storages) -> None:
        self._storages = storages
        self._path = storages.path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for opcode, argument, position in pickletools.genops(self._storages.stream()):
            if opcode.name == "STOP":
                return self._pop()
            operation = _OPERATIONS.get(opcode.name)
            if operation is None:
                raise DataError(
                    f"{self._path}: opcode {opcode.name} at byte {position} of the pickle is not "
                    f"among those that a tuple of two tensors needs; nothing was executed. Save "
                    f"the tensors alone: torch.save((first, second), path)."
                )
            operation(self, argument)
        raise self._damaged("it has no end")

    def skip(self, argument: Any) -> None:
        """Skip PROTO: all protocols write the allowed opcodes in the same way."""

    def push(self, argument: Any) -> None:
        self._stack.append(argument)

    def push_true(self, argument: Any) -> None:
        self._stack.append(True)

    def push_false(self, argument: Any) -> None:
        self._stack.append(False)

    def push_mark(self, argument: Any) -> None:
        self._stack.append(_Mark())

    def push_global(self, argument: Any) -> None:
        if argument not in _GLOBALS:
            raise DataError(
                f"{self._path}: the pickle asks for {str(argument).replace(' ', '.')!r}, which a "
                f"tuple of two tensors does not need; nothing was executed. Do not open this file "
                f"with torch.load or pickle unless you trust where it comes from."
            )
        self._stack.append(_Global(argument))

    def remember(self, argument: Any) -> None:
        if not self._stack:
            raise self._damaged("its stack is empty")
        self._memo[argument] = self._stack[-1]

    def recall(self, argument: Any) -> None:
        if argument not in self._memo:
            raise self._damaged(f"it recalls value {argument}, which it never stored")
        self._stack.append(self._memo[argument])

    def build_tuple(self, length: int) -> None:
        items = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(items)))

    def build_marked_tuple(self, argument: Any) -> None:
        items: list[Any] = []
        while not isinstance(item := self._pop(), _Mark):
            items.append(item)
        self._stack.append(tuple(reversed(items)))

    def load_storage(self, argument: Any) -> None:
        match self._pop():
            case (str(tag), _Global(kind), str(key), str(), int(count)) if (
                tag == "storage" and kind in STORAGES
            ):
                self._stack.append(self._storages.find(kind, key, count))
            case _:
                raise self._damaged("it refers to a storage in a way that torch does not")

    def reduce(self, argument: Any) -> None:
        arguments, function = self._pop(), self._pop()
        match function, arguments:
            case _Global(name), () if name == _HOOKS:
                self._stack.append({})
            case _Global(name), tuple() if name == _TENSOR:
                self._stack.append(self._tensor(arguments))
            case _:
                raise self._damaged("it calls something in a way that torch does not")

    def _tensor(self, arguments: tuple[Any, ...]) -> NDArray[Any]:
        match arguments:
            case (Storage(numbers), offset, tuple(size), tuple(strides), bool(), dict()):
                pass
            case _:
                raise self._damaged("it builds a tensor from other things than torch does")
        if len(size) != len(strides) or len(size) > _AXES:
            raise self._damaged("it builds a tensor with axes that do not fit")
        if any(type(n) is not int or n < 0 for n in (offset, *size, *strides)):
            raise self._damaged("a tensor's offset, sizes or strides are no natural numbers")
        if math.prod(size) > len(numbers):  # with strides of 0, a few bytes could fill the memory
            raise DataError(
                f"{self._path}: a tensor has more elements than its storage, {len(numbers)}. Save "
                f"tensor.contiguous()."
            )
        if 0 in size:
            return np.zeros(size, numbers.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(size, strides, strict=True))
        if last >= len(numbers):
            raise self._damaged(
                f"a tensor reaches element {last} of a storage with {len(numbers)} elements"
            )
        steps = [step * numbers.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps, writeable=False)

    def _pop(self) -> Any:
        if not self._stack:
            raise self._damaged("its stack is empty")
        return self._stack.pop()

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self._path}: the pickle inside is damaged or was not made by torch: {what}."
        )


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.skip,
    "MARK": _Machine.push_mark,
    "GLOBAL": _Machine.push_global,
    "BINUNICODE": _Machine.push,
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "NEWTRUE": _Machine.push_true,
    "NEWFALSE": _Machine.push_false,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "EMPTY_TUPLE": lambda machine, _: machine.build_tuple(0),
    "TUPLE1": lambda machine, _: machine.build_tuple(1),
    "TUPLE2": lambda machine, _: machine.build_tuple(2),
    "TUPLE3": lambda machine, _: machine.build_tuple(3),
    "TUPLE": _Machine.build_marked_tuple,
    "BINPERSID": _Machine.load_storage,
    "REDUCE": _Machine.reduce,
}

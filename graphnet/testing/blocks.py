"""Blocks: run kernels for blocks of pixels on images N C H W, which are packed and unpacked for each call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from graphnet.graph import as_tuple
from graphnet.passes import in_blocks
from graphnet.sdk import Kernel, Layout, pack, unpack


def in_plain_layout(kernel: Kernel) -> Kernel:
    """Return the kernel; for one that works in blocks, return a variant that takes images N C H W."""
    if not in_blocks(kernel):
        return kernel
    return _plain_class(type(kernel))(**kernel.configuration())


@functools.cache
def _plain_class(cls: type[Kernel]) -> type[Kernel]:
    """Make a subclass that takes and returns images N C H W under the same argument names."""

    declared: Callable[[Kernel], Mapping[str, Layout]] = cls.layouts.fget  # type: ignore[attr-defined]

    def blocks(self: Kernel) -> Mapping[str, Layout]:
        found = declared(self)
        gradients = {f"grad_{name}": stack for name, stack in found.items()}
        return {**found, **gradients}

    def wrapped(method: str, results: Sequence[str]) -> Any:
        original = getattr(cls, method)
        signature = inspect.signature(original)

        def run(self: Kernel, *args: Any, **named: Any) -> Any:
            stacks = blocks(self)
            given = signature.bind(self, *args, **named)
            for name, value in given.arguments.items():
                given.arguments[name] = _packed(value, stacks.get(name))
            returned = original(*given.args, **given.kwargs)
            values = tuple(
                unpack(value) if name in stacks and value is not None else value
                for name, value in zip(results, as_tuple(returned), strict=True)
            )
            return values if isinstance(returned, tuple) else values[0]

        run.__signature__ = signature  # type: ignore[attr-defined]
        return run

    names = cls.signature.tensors
    members = {
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
        "layouts": property(lambda self: None),
        "forward": wrapped("forward", cls.outputs + cls.saves),
        "backward": wrapped("backward", [f"grad_{name}" for name in names]),
    }
    return type(cls.__name__, (cls,), members)


def _packed(value: Any, stack: Layout | None) -> Any:
    return pack(value, stack) if isinstance(value, Tensor) and stack is not None else value

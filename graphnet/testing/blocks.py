"""Blocks: run kernels for blocks of pixels on images N C H W, which are packed and unpacked for each call.

Nothing of what the kernel does to its arguments is lost: what it writes to a packed image is written to the
image too, and the blocks of an image that is not contiguous are not contiguous either.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
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
            images = {name: x for name, x in given.arguments.items() if stacks.get(name)}
            images = {name: x for name, x in images.items() if isinstance(x, Tensor)}
            for name, value in given.arguments.items():
                given.arguments[name] = _packed(value, stacks.get(name))
            packed = {name: given.arguments[name] for name in images}
            before = {name: _writes(x) for name, x in packed.items()}
            returned = original(*given.args, **given.kwargs)
            for name, image in images.items():
                if _writes(packed[name]) != before[name]:
                    image.copy_(unpack(packed[name]))
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
    if not isinstance(value, Tensor) or stack is None:
        return value
    packed = pack(value, stack)
    return scattered(packed) if stack and not value.is_contiguous() else packed


def scattered(x: Tensor) -> Tensor:
    """Copy a tensor to strides of which no two axes can be joined: the last two are swapped, with gaps.

    >>> scattered(torch.ones(3, 4, 5)).stride()
    (40, 2, 8)
    """
    room = x.new_empty((*x.shape[:-2], x.shape[-1], 2 * x.shape[-2]))
    view = room[..., ::2].transpose(-1, -2)
    return view.copy_(x)


def _writes(x: Tensor) -> int:
    """How often a tensor was written to; torch.compile counts nothing."""
    return 0 if torch.compiler.is_compiling() else x._version

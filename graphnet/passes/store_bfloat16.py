"""Store bfloat16: values that wait for the reverse pass are stored in bfloat16.

The forward pass does not change ("delayed precision reduction", Jain et al. 2018, "Gist: Efficient Data
Encoding for Deep Neural Network Training", section 4.3). A value that the reverse pass needs is rounded after
its last forward reader. A backward call reads the rounded value if its layer declares that (`kept`);
otherwise it reads a copy that is cast back to the wider dtype. The gradients of activations stay in float32.
The gradients of weights are computed from inputs with 8 significant bits; in sums over pixels the errors
mostly cancel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from graphnet.graph import Arg, Call, Graph, Kind, flatten, renamed
from graphnet.passes.rewrite import add_cast, dtype_of_value
from graphnet.sdk import FLOATING, DType, Layer

_LEAST_ELEMENTS = 4096  # smaller values are not worth two more calls


def store_bfloat16(graph: Graph) -> Graph:
    """Cast the values that backward calls read; `graph` is the graph of a whole step."""
    return _Store(graph).run()


class _Store:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kept = frozenset(_kept(graph))
        self.calls: dict[str, Call] = {}
        self.values = dict(graph.values)

    def run(self) -> Graph:
        done = self.last_forward_use()
        for name, call in self.graph.calls.items():
            self.calls[name] = self.reads_kept(call) if call.kind is Kind.BACKWARD else call
            for value in done.get(name, ()):
                self.cast(value, f"{value}:kept", "bfloat16")
        return replace(self.graph, calls=self.calls, values=self.values)

    def last_forward_use(self) -> dict[str, list[str]]:
        """Call -> the kept values that no later call of the forward pass makes or reads."""
        last: dict[str, str] = {}
        for name, call in self.graph.calls.items():
            if call.kind is not Kind.BACKWARD:
                last |= {
                    value: name for value in (*call.makes(), *call.reads()) if value in self.kept
                }
        done: dict[str, list[str]] = {}
        for value, call_name in last.items():
            done.setdefault(call_name, []).append(value)
        return done

    def reads_kept(self, call: Call) -> Call:
        """The call with stored values as arguments, cast back where its layer does not take them narrow."""
        layer = call.layer
        if not isinstance(layer, Layer) or self.kept.isdisjoint(call.reads()):
            return call
        args: list[Arg] = []
        for port, arg in zip(layer.signature.of(call.method), call.args, strict=True):
            names = {}
            for value in flatten((arg,)):
                if value in self.kept:
                    narrow = f"{value}:kept.y"
                    wide = dtype_of_value(self.graph.values[value])
                    as_it_is = port in layer.kept
                    back = f"{value}:kept:{call.name}"
                    names[value] = narrow if as_it_is else self.cast(narrow, back, wide)
            args.append(renamed(arg, names))
        return replace(call, args=tuple(args))

    def cast(self, source: str, name: str, dtype: DType) -> str:
        return add_cast(source, name, dtype, calls=self.calls, values=self.values)


def _kept(graph: Graph) -> Iterator[str]:
    """Yield the layers' values to store: they have a wider dtype, and no other value in their storage.

    A value that a loss reads is left out: the backward call of the loss reads it again at once.
    """
    viewed = {value.view_of for value in graph.values.values()}
    for name, value in graph.values.items():
        kinds = {graph.calls[reader].kind for reader in graph.readers.get(name, ())}
        wide = value.spec.dtype in FLOATING and (
            value.spec.dtype.itemsize > torch.bfloat16.itemsize
        )
        alone = value.view_of is None and name not in viewed and name not in graph.outputs
        if (
            value.kind is Kind.LAYER
            and wide
            and alone
            and value.spec.numel >= _LEAST_ELEMENTS
            and Kind.BACKWARD in kinds
            and Kind.LOSS not in kinds
        ):
            yield name

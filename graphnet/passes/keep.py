"""Keep: hold in bfloat16 what the forward pass keeps for the reverse pass.

The forward pass runs as it did; a value that the reverse pass needs is rounded once its forward readers are
done with it, and each call of the reverse pass reads a copy of its own in the wider dtype ("delayed precision
reduction", Jain et al. 2018, "Gist: Efficient Data Encoding for Deep Neural Network Training", section 4.3).
What goes back through activations keeps float32; the gradients of weights see inputs rounded to 8 binary
digits, whose errors mostly cancel in sums over pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphnet.calls import DTYPES, Cast, DType
from graphnet.graph import Call, Graph, Kind, Value
from graphnet.passes.forward import renamed
from graphnet.passes.precision import dtype_name

_LEAST_ELEMENTS = 4096  # smaller values are not worth two more calls


def keep(graph: Graph, *, dtype: DType) -> Graph:
    """Cast what calls of the reverse pass read; `graph` has forward, reverse pass and updates."""
    kept = frozenset(_kept(graph, dtype))
    calls: dict[str, Call] = {}
    values = dict(graph.values)

    def cast(source: str, call: str, to: DType) -> str:
        """The value in another dtype, by a call of this name."""
        spec = replace(values[source].spec, dtype=DTYPES[to])
        result = f"{call}.y"
        values[result] = Value(result, spec, Kind.LAYER, layout=values[source].layout)
        calls[call] = Call(
            name=call,
            kind=Kind.LAYER,
            layer=Cast(dtype=to),
            method="forward",
            args=(source,),
            results=(result,),
            title="cast",
            node=call,
        )
        return result

    for name, call in graph.calls.items():
        copies: dict[str, str] = {}
        if call.kind is Kind.BACKWARD:
            for value in dict.fromkeys(call.reads()):
                if value in kept:
                    wide = dtype_name(values[value])
                    copies[value] = cast(f"{value}:kept.y", f"{value}:kept:{name}", wide)
        args = tuple(renamed(arg, copies) for arg in call.args)
        calls[name] = replace(call, args=args) if copies else call
        for made in call.makes():
            if made in kept:
                cast(made, f"{made}:kept", dtype)
    return replace(graph, calls=calls, values=values)


def _kept(graph: Graph, dtype: DType) -> Iterator[str]:
    """The values of layers that are kept in a wider dtype and share their storage with nothing."""
    viewed = {value.view_of for value in graph.values.values()}
    for name, value in graph.values.items():
        kinds = {graph.calls[reader].kind for reader in graph.readers.get(name, ())}
        wide = value.spec.dtype in DTYPES.values() and (
            value.spec.dtype.itemsize > DTYPES[dtype].itemsize
        )
        alone = value.view_of is None and name not in viewed and name not in graph.outputs
        if (
            value.kind is Kind.LAYER
            and wide
            and alone
            and value.spec.numel >= _LEAST_ELEMENTS
            and Kind.BACKWARD in kinds
            and Kind.LOSS
            not in kinds  # a prediction is read again at once: nothing would be gained
        ):
            yield name

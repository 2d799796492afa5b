"""Mixed precision: insert casts, so that layers compute in bfloat16 or float16.

The casts are ordinary layers. They are inserted before differentiation, which adds the casts of the
gradients. The parameters stay in float32, and the optimizer updates them; a step begins with their casts.
Each value is cast at most once to each dtype.
"""

from __future__ import annotations

from dataclasses import replace

from graphnet.graph import Arg, Call, Graph, Kind, flatten, renamed
from graphnet.passes.rewrite import add_cast, bound_arguments, dtype_of_value, rewire
from graphnet.sdk import FLOATING, DType, Layer, Precision

_WEIGHTS = frozenset({Kind.PARAMETER, Kind.FROZEN, Kind.FOLD})


def mixed_precision(graph: Graph, *, compute: DType) -> Graph:
    """Insert casts, so that each layer runs in the dtype that it declares; `compute` is the narrow one.

    The graph's outputs keep their dtypes.
    """
    return _Precision(graph, compute).run()


class _Precision:
    def __init__(self, graph: Graph, compute: DType) -> None:
        self.graph = graph
        self.compute = compute
        self.calls: dict[str, Call] = {}
        self.values = dict(graph.values)

    def run(self) -> Graph:
        for call in self.graph.calls.values():
            self.add(call)
        outputs = tuple(
            self.cast(name, dtype_of_value(self.graph.values[name])) for name in self.graph.outputs
        )
        return replace(self.graph, calls=self.calls, values=self.values, outputs=outputs)

    def add(self, call: Call) -> None:
        layer = call.layer
        if not isinstance(layer, Layer) or call.kind not in (Kind.LAYER, Kind.LOSS):
            self.calls[call.name] = call
            return
        bound = bound_arguments(call)
        movable = [name for name in flatten(call.args) if self.movable(name)]
        wanted = self.wanted(layer.precision, movable)
        names = {name: self.cast(name, wanted) for name in movable}
        moved: dict[str, Arg] = {name: renamed(arg, names) for name, arg in bound.items()}
        self.calls[call.name] = rewire(call, moved, self.values)

    def movable(self, name: str) -> bool:
        """Whether a value may be cast: it is of floating point and no state."""
        value = self.values[name]
        return value.spec.dtype in FLOATING and value.kind is not Kind.STATE

    def wanted(self, declared: Precision, names: list[str]) -> DType:
        """The dtype that a layer runs in."""
        if declared == "compute":
            return self.compute
        inputs = [name for name in names if self.values[name].kind not in _WEIGHTS]
        narrow = all(dtype_of_value(self.values[name]) == self.compute for name in inputs)
        return self.compute if declared == "follow" and inputs and narrow else "float32"

    def cast(self, name: str, dtype: DType) -> str:
        """The value in this dtype: itself, or the result of a cast, which is added only once."""
        value = self.values[name]
        if dtype_of_value(value) == dtype:
            return name
        return add_cast(name, f"{name}:{dtype}", dtype, calls=self.calls, values=self.values)

"""Fold affine: move the scale and shift of channels into the parameters of the layer before.

In a plan for inference, a layer with `affine_map` (such as a norm with running statistics) multiplies each
channel by a scale and adds a shift. Both depend on its parameters and states only. If the layer before it
has `absorb`,

    norm(conv(x, weight, bias))    becomes    conv(x, weight', bias')

with  scale, shift = norm.affine_map(...)  and  weight', bias' = conv.absorb(weight, bias, scale, shift).
These two calls read no input, so passes/hoist_constants.py moves them out of the run. They work in the
dtype of the parameters, because this pass runs before the casts are inserted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from graphnet.errors import LayerError
from graphnet.graph import SLOTS, Arg, Call, Const, Graph, Kind, flatten, renamed, result_names
from graphnet.passes.rewrite import at, bound_arguments, call_method, rewire
from graphnet.sdk import AFFINE, Kernel, Layer

_WEIGHTS = SLOTS | {Kind.FOLD}


def fold_affine(graph: Graph) -> Graph:
    """Fold each layer that has `affine_map` into the layer before it, if that layer has `absorb`.

    Two layers stay as they are if the value between them has another reader or is an output.

    Raises:
        LayerError: `affine_map` or `absorb` returns values of wrong shapes or dtypes.
    """
    return _Folding(graph).run()


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.calls: dict[str, Call] = {}
        self.values = dict(graph.values)
        self.names: dict[str, str] = {}  # output of a folded layer -> the value in its place

    def run(self) -> Graph:
        for call in self.graph.calls.values():
            image = self.image(call)
            before = self.maker(image)
            if before is not None and self.absorbs(before):
                self.fold(call, before)
                continue
            args = tuple(renamed(arg, self.names) for arg in call.args)
            self.calls[call.name] = replace(call, args=args)
        for name, value in self.values.items():
            view_of = self.names.get(str(value.view_of), value.view_of)
            self.values[name] = replace(value, view_of=view_of)
        outputs = tuple(self.names.get(name, name) for name in self.graph.outputs)
        return replace(self.graph, calls=self.calls, values=self.values, outputs=outputs)

    def maker(self, image: str) -> Call | None:
        """The call that makes a value, with the folds done so far."""
        value = self.names.get(image, image)
        producer = self.graph.producers.get(value)
        return None if producer is None else self.calls[producer.name]

    def image(self, call: Call) -> str:
        """The image that a call scales and shifts; "" if it does more or the image has other readers."""
        if not _has(call, "affine_map"):
            return ""
        image, *rest = bound_arguments(call).values()
        alone = isinstance(image, str) and len(self.graph.readers[image]) == 1
        if not alone or image in self.graph.outputs or not self.weights(rest):
            return ""
        return "" if self.read(call.results[1:]) else str(image)

    def absorbs(self, call: Call) -> bool:
        """Whether the call can apply a scale and shift by a change of its parameters."""
        if not _has(call, "absorb") or self.read(call.results[1:]):
            return False
        bound = bound_arguments(call)
        return self.weights(bound[name] for name in _changed(call))

    def weights(self, args: Iterable[Arg]) -> bool:
        """Whether each argument is a parameter, a state, computed from these, or absent."""
        return all(
            isinstance(arg, Const) or self.values[name].kind in _WEIGHTS
            for arg in args
            for name in flatten((arg,))
        )

    def read(self, results: Iterable[object]) -> bool:
        return any(name in self.graph.readers for name in results)

    def fold(self, call: Call, before: Call) -> None:
        """Replace `before` and `call` by `before` with the parameters that two new calls make."""
        bound, others = bound_arguments(call), bound_arguments(before)
        mapped = dict(zip(AFFINE, self.add(call, call, "affine_map", bound), strict=True))
        absorbed = self.add(call, before, "absorb", {**others, **mapped})
        others |= zip(_changed(before), absorbed, strict=True)
        image, result = str(before.results[0]), str(call.results[0])
        if self.values[image].spec != self.values[result].spec:
            raise LayerError(
                f"{at(call)}has an affine_map, so its output must be {self.values[image].spec}, as its "
                f"input is; found {self.values[result].spec}"
            )
        for name in call.makes():
            del self.values[name]
        self.names[result] = image
        del self.calls[before.name]  # it has to stand after the two new calls
        self.calls[before.name] = rewire(before, others, self.values)

    def add(self, norm: Call, call: Call, method: str, bound: dict[str, Arg]) -> Iterator[str]:
        """Add a call of a method of `call`; returns its results, which are named after the folded layer."""
        device = self.values[str(norm.results[0])].spec.device
        name = f"{norm.name}:{method}"
        made = call_method(call, method, bound, self.values, name=name, device=device)
        self.calls[name] = made
        return made.makes()


def _has(call: Call, method: str) -> bool:
    """Whether this is a forward call of a layer (no kernel) that has the method."""
    layer = call.layer
    if not isinstance(layer, Layer) or isinstance(layer, Kernel):
        return False
    return call.kind is Kind.LAYER and call.method == "forward" and bool(layer.signature.of(method))


def _changed(call: Call) -> tuple[str, ...]:
    """The names of the parameters that `absorb` of the call's layer changes."""
    assert isinstance(call.layer, Layer)
    return result_names(call.layer, "absorb")

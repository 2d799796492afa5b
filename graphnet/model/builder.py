"""Builder: a model description from Python, one call for each node.

    net = Builder(channels=3)
    x = net("conv2d", net.input, out_channels=64, kernel_size=3, padding=1)
    y = net("relu", x)
    net.outputs(net("concat", x, y))
    model = net.model()

What blocks and `share` are in YAML, functions and `share=` are here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from graphnet.description import InputDescription, ModelDescription, NodeDescription
from graphnet.model.model import Model
from graphnet.sdk import Registry


@dataclass(frozen=True, slots=True)
class Output:
    """A handle on a node's first output; `handle["name"]` is another one."""

    reference: str

    def __getitem__(self, output: str) -> Output:
        return Output(f"{self.reference}.{output}")


class Builder:
    """Collects nodes; call it with a layer's name, its inputs, and the layer's fields.

    >>> net = Builder(channels=1)
    >>> h = net("relu", net("sigmoid", net.input))
    >>> net.description().layers[1].inputs
    ('sigmoid_1',)
    """

    def __init__(
        self, *, name: str = "model", channels: int | None = None, **inputs: int | None
    ) -> None:
        named = inputs or {"input": channels}
        self._name = name
        self._inputs = {key: InputDescription(channels=value) for key, value in named.items()}
        self._nodes: list[NodeDescription] = []
        self._numbers: Counter[str] = Counter()
        self._outputs: tuple[str, ...] = ()

    @property
    def input(self) -> Output:
        """The first input."""
        return self.inputs[0]

    @property
    def inputs(self) -> tuple[Output, ...]:
        return tuple(Output(f"${name}") for name in self._inputs)

    def __call__(
        self,
        layer: str,
        *inputs: Output,
        id: str | None = None,
        share: Output | None = None,
        **config: Any,
    ) -> Output:
        """Add a node; returns the handle on its output. What is wrong is said by `model()`."""
        if id is None:
            base = layer.rpartition("/")[2]
            self._numbers[base] += 1
            id = f"{base}_{self._numbers[base]}"
        self._nodes.append(
            NodeDescription(
                layer=layer,
                config=config,
                id=id,
                inputs=tuple(x.reference for x in inputs),
                share=share.reference if share else None,
                place=("layers", len(self._nodes)),
            )
        )
        return Output(id)

    def outputs(self, *outputs: Output) -> None:
        """State what the model returns; without it, the last node's output."""
        self._outputs = tuple(output.reference for output in outputs)

    def description(self) -> ModelDescription:
        return ModelDescription(
            layers=tuple(self._nodes), name=self._name, inputs=self._inputs, outputs=self._outputs
        )

    def model(self, *, registry: Registry | None = None) -> Model:
        """The model. Raises DescriptionError with everything that is wrong."""
        return Model(self.description(), registry=registry)

"""Builder: make a model in Python, with one call for each node.

    net = Builder(channels=3)
    x = net("conv2d", net.input, out_channels=64, kernel_size=3, padding=1)
    y = net("relu", x)
    net.outputs(net("concat", x, y))
    model = net.model()

Where a YAML file uses a block, Python uses a function; `share` in YAML is the argument `share=` here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from graphnet.description import InputDescription, ModelDescription, NodeDescription
from graphnet.errors import InputError, shown
from graphnet.model.model import Model
from graphnet.sdk import Registry


@dataclass(frozen=True, slots=True)
class Output:
    """Stands for the first output of a node; `output["name"]` stands for another output of that node."""

    reference: str

    def __getitem__(self, output: str) -> Output:
        return Output(f"{self.reference}.{output}")


class Builder:
    """Collects the nodes of a model. A call with a layer's name, its inputs and its fields adds a node.

    Args:
        name: the model's name.
        channels: the channels of the only input; None accepts any number.
        inputs: for other inputs, their names, each with its channels or an InputDescription:
            `tokens=InputDescription(shape=("time",), dtype="int64")`.

    Raises:
        InputError: an argument is given by position, or `channels` beside other inputs.
        DescriptionError: a number of channels is no integer greater than 0.

    >>> net = Builder(channels=1)
    >>> h = net("relu", net("sigmoid", net.input))
    >>> net.description().layers[1].inputs
    ('sigmoid_1',)
    """

    def __init__(
        self,
        *nothing: object,
        name: str = "model",
        channels: int | None = None,
        **inputs: int | InputDescription | None,
    ) -> None:
        if nothing:
            raise InputError(
                f"Builder takes arguments by name only, got {shown(nothing[0])}. Write net = "
                f"Builder(channels=3), then y = net('relu', net.input)."
            )
        if inputs and channels is not None:
            raise InputError(
                f"Builder: channels are those of the only input, but {', '.join(inputs)} "
                f"{'is' if len(inputs) == 1 else 'are'} given too. Write "
                f"{next(iter(inputs))}={channels!r} for its channels."
            )
        named = inputs or {"input": channels}
        self._name = name
        self._inputs = {
            key: value if isinstance(value, InputDescription) else InputDescription(channels=value)
            for key, value in named.items()
        }
        self._nodes: list[NodeDescription] = []
        self._numbers: Counter[str] = Counter()
        self._outputs: tuple[str, ...] = ()

    @property
    def input(self) -> Output:
        """The first input."""
        return self.inputs[0]

    @property
    def inputs(self) -> tuple[Output, ...]:
        """All inputs, in the order in which they were given."""
        return tuple(Output(f"${name}") for name in self._inputs)

    def __call__(
        self,
        layer: str,
        *inputs: Output,
        id: str | None = None,
        share: Output | None = None,
        **config: Any,
    ) -> Output:
        """Add a node. Faults of the description are not reported here, but by `model()`.

        Args:
            layer: the registered name of the layer.
            inputs: the outputs that the node reads.
            id: the node's name; None makes one from the layer's name and a number.
            share: a node whose parameters this node uses too.
            config: the layer's fields.

        Returns:
            The first output of the new node.

        Raises:
            InputError: the layer is not a name, or an input or `share` is not an output of a node.
        """
        if not isinstance(layer, str):
            raise InputError(f"expected the name of a layer, such as 'relu', got {shown(layer)}")
        if id is None:
            base = layer.rpartition("/")[2]
            self._numbers[base] += 1
            id = f"{base}_{self._numbers[base]}"
        self._nodes.append(
            NodeDescription(
                layer=layer,
                config=config,
                id=id,
                inputs=tuple(_reference(x, layer) for x in inputs),
                share=None if share is None else _reference(share, layer),
                place=("layers", len(self._nodes)),
            )
        )
        return Output(id)

    def __repr__(self) -> str:
        inputs = ", ".join(f"${name}" for name in self._inputs)
        return f"Builder({self._name!r}, inputs {inputs}, {len(self._nodes)} nodes)"

    def outputs(self, *outputs: Output) -> None:
        """State which outputs the model returns; by default the output of the last node."""
        self._outputs = tuple(_reference(output, "outputs") for output in outputs)

    def description(self) -> ModelDescription:
        """Return the description of the nodes so far; `model()` checks it."""
        return ModelDescription(
            layers=tuple(self._nodes), name=self._name, inputs=self._inputs, outputs=self._outputs
        )

    def model(self, *, registry: Registry | None = None) -> Model:
        """Make the model.

        Raises:
            DescriptionError: the description is wrong; the error holds every fault.
        """
        return Model(self.description(), registry=registry)


def _reference(output: object, where: str) -> str:
    if not isinstance(output, Output):
        raise InputError(
            f"{where}: expected the output of a node, such as net.input or what net('relu', x) returns, got "
            f"{shown(output)}"
        )
    return output.reference

"""Reading: what the reader of an operator sees of its node, and the layers that it adds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from torch import Tensor

Shape = tuple[int | None, ...]


class Unreadable(Exception):
    """No layers compute what this node computes; the message says why."""


@dataclass
class Reading:
    """The part of the model that has been read so far.

    Attributes:
        shapes: the sizes of the values of the graph, None where a size is free; no entry if nothing is known.
        constants: the tensors that are fixed, by name.
        references: how a description names each value that layers compute.
        layers: the nodes of the description.
        weights: the tensors of the layers, by name.
        uses: how often each value is read; graph outputs count.
        failed: the values that could not be read.
    """

    opset: int
    shapes: Mapping[str, Shape]
    uses: Mapping[str, int]
    constants: dict[str, Tensor]
    references: dict[str, str] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def unique(self, wanted: str) -> str:
        """A name for a node of the description that no other has, made from this one."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", wanted).strip("_-") or "node"
        plain = plain if plain[0].isalpha() else f"n_{plain}"
        known = {layer["id"] for layer in self.layers}
        found, number = plain, 1
        while found in known:
            number += 1
            found = f"{plain}_{number}"
        return found


@dataclass(frozen=True)
class Node:
    """One ONNX node: its inputs, its attributes, and the layers that are made of it."""

    proto: onnx.NodeProto
    reading: Reading
    attributes: Mapping[str, Any]

    @property
    def count(self) -> int:
        """The number of inputs, without those left out at the end."""
        names = list(self.proto.input)
        while names and not names[-1]:
            names.pop()
        return len(names)

    def has(self, index: int) -> bool:
        """Whether this input is given."""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def is_constant(self, index: int) -> bool:
        """Whether this input is a tensor that is fixed."""
        return self.has(index) and self.proto.input[index] in self.reading.constants

    def constant(self, index: int) -> Tensor:
        """A fixed input. Raises Unreadable if it is computed."""
        if not self.is_constant(index):
            raise Unreadable(f"its input {self.proto.input[index]!r} must be a constant")
        return self.reading.constants[self.proto.input[index]]

    def optional(self, index: int) -> Tensor | None:
        """A fixed input, or None if it is left out."""
        return self.constant(index) if self.has(index) else None

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """A list of integers that older operators have as an attribute and newer ones as an input."""
        if self.has(index):
            return [int(n) for n in self.constant(index).reshape(-1)]
        given = self.attributes.get(attribute)
        return None if given is None else list(given)

    def value(self, index: int = 0) -> str:
        """A computed input, as a description names it. Raises Unreadable if it is a constant."""
        name = self.proto.input[index]
        if name not in self.reading.references:
            raise Unreadable(
                f"its input {name!r} is a constant, where layers take computed tensors only"
            )
        return self.reading.references[name]

    def values(self) -> list[str]:
        """All inputs, as a description names them."""
        return [self.value(i) for i in range(self.count)]

    def shape(self, index: int = 0) -> Shape:
        """The sizes of an input. Raises Unreadable if the number of its axes is not known."""
        name = self.proto.input[index]
        if name in self.reading.constants:
            return tuple(self.reading.constants[name].shape)
        if name not in self.reading.shapes:
            raise Unreadable(f"the number of axes of its input {name!r} is not known")
        return self.reading.shapes[name]

    def size(self, axis: int, index: int = 0) -> int:
        """The size of an axis of an input. Raises Unreadable if it is free."""
        found = self.shape(index)[axis]
        if found is None:
            raise Unreadable(f"the size of axis {axis} of {self.proto.input[index]!r} is free")
        return found

    def spatial(self, index: int = 0) -> int:
        """The number of axes after batch and channels. Raises Unreadable unless it is 1, 2 or 3."""
        axes = len(self.shape(index)) - 2
        if axes not in (1, 2, 3):
            raise Unreadable(f"layers have one, two or three spatial axes, found {axes}")
        return axes

    def only(self, **allowed: Any) -> None:
        """Raise Unreadable if an attribute has another value than this one, which layers have."""
        for name, value in allowed.items():
            found = self.attributes.get(name, value)
            if found != value:
                raise Unreadable(f"{name} {found!r} has no layer, only {value!r}")

    def unused(self, *outputs: int) -> None:
        """Raise Unreadable if anything reads one of these outputs, which layers do not return."""
        for index in outputs:
            if len(self.proto.output) > index and self.reading.uses.get(self.proto.output[index]):
                raise Unreadable(f"its output {index} ({self.proto.output[index]!r}) has no layer")

    def add(
        self,
        layer: str,
        *inputs: str,
        weights: Mapping[str, Tensor | None] | None = None,
        **fields: Any,
    ) -> str:
        """Add a layer, and return how a description names its output.

        Args:
            layer: its name.
            inputs: what it reads; by default the first input of this node.
            weights: its parameters and states; None for one that it does not have.
            fields: its fields.
        """
        wanted = self.proto.name or next(filter(None, self.proto.output), layer)
        name = self.reading.unique(wanted)
        read = list(inputs) or [self.value()]
        self.reading.layers.append({"id": name, layer: fields, "inputs": read})
        for port, tensor in (weights or {}).items():
            if tensor is not None:
                self.reading.weights[f"{name}.{port}"] = tensor.clone()
        return name

    def returns(self, *references: str) -> None:
        """State which references the outputs of this node are."""
        for name, reference in zip(self.proto.output, references, strict=False):
            if name:
                self.reading.references[name] = reference


OperatorReader = Callable[[Node], str | tuple[str, ...]]
"""Makes layers of a node, and returns the references of its outputs. Raises Unreadable."""

"""ModelDescription: what a model file says, read into frozen data, with every error at once.

A description holds names and numbers only: no expressions, no conditions, no code. Blocks are kept as
blocks, so that a description dumps as it was written; expand.py unrolls them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphnet.description.yamlfile import Locations, Place, dotted, dump, read_file, read_text
from graphnet.errors import DescriptionError, Problem, nearest

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NODE_KEYS = ("id", "inputs", "share")
_MODEL_KEYS = ("name", "input", "inputs", "blocks", "layers", "outputs")
_BLOCK_KEYS = ("arguments", "inputs", "layers", "outputs")
_INPUT_KEYS = ("channels", "height", "width")


@dataclass(frozen=True)
class InputDescription:
    """What is known of an input beforehand; None for what the data decides."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None

    def to_data(self) -> dict[str, int]:
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class NodeDescription:
    """One entry of `layers`: a layer or a block, its configuration and where its inputs come from.

    `inputs` None takes the node before; `place` is for messages only and not compared.
    """

    layer: str
    config: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None
    inputs: tuple[str, ...] | None = None
    share: str | None = None
    place: Place = field(default=(), compare=False)

    def to_data(self) -> Any:
        named: dict[str, Any] = {"id": self.id} if self.id else {}
        if self.inputs is None and self.share is None and not named and not self.config:
            return self.layer
        named[self.layer] = dict(self.config)
        if self.inputs is not None:
            named["inputs"] = list(self.inputs)
        if self.share:
            named["share"] = self.share
        return named


@dataclass(frozen=True)
class BlockDescription:
    """A reusable piece of graph: its arguments with their defaults (None: must be given)."""

    layers: tuple[NodeDescription, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("input",)
    outputs: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if self.arguments:
            data["arguments"] = dict(self.arguments)
        if self.inputs != ("input",):
            data["inputs"] = list(self.inputs)
        data["layers"] = [node.to_data() for node in self.layers]
        if self.outputs:
            data["outputs"] = list(self.outputs)
        return data


@dataclass(frozen=True)
class ModelDescription:
    """A model as its file says it. `locations` is for messages only and not compared."""

    layers: tuple[NodeDescription, ...]
    name: str = "model"
    inputs: Mapping[str, InputDescription] = field(
        default_factory=lambda: {"input": InputDescription()}
    )
    blocks: Mapping[str, BlockDescription] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    locations: Locations = field(default=Locations(), compare=False, repr=False)

    def to_data(self) -> dict[str, Any]:
        """Plain data that `parse` reads back equal."""
        data: dict[str, Any] = {"name": self.name}
        if tuple(self.inputs) == ("input",):
            data["input"] = self.inputs["input"].to_data()
        else:
            data["inputs"] = {name: item.to_data() for name, item in self.inputs.items()}
        if self.blocks:
            data["blocks"] = {name: block.to_data() for name, block in self.blocks.items()}
        data["layers"] = [node.to_data() for node in self.layers]
        if self.outputs:
            data["outputs"] = list(self.outputs)
        return data

    def to_yaml(self) -> str:
        """YAML text that reads back equal."""
        return dump(self.to_data())


def read_description(path: Path | str, problems: list[Problem] | None = None) -> ModelDescription:
    """Read a model file. Raises DescriptionError with every problem (or adds them to `problems`)."""
    return parse(*read_file(Path(path)), problems=problems)


def parse_text(text: str, *, name: str = "<text>") -> ModelDescription:
    """Read a model description from YAML text."""
    return parse(*read_text(text, name=name))


def parse(
    data: Any, locations: Locations | None = None, *, problems: list[Problem] | None = None
) -> ModelDescription:
    """Read a model description from plain data.

    With `problems` given, what is wrong is added to it and what is right is returned, so that a
    caller can go on and find more; otherwise DescriptionError is raised.

    >>> parse({"layers": ["relu"]}).layers[0].layer
    'relu'
    """
    reader = _Parser(locations or Locations())
    description = reader.model(data)
    if problems is not None:
        problems.extend(reader.problems)
    elif reader.problems:
        raise DescriptionError(reader.problems)
    return description


class _Parser:
    """Walks plain data; every method returns the best it can and records what is wrong."""

    def __init__(self, locations: Locations) -> None:
        self.locations = locations
        self.problems: list[Problem] = []

    def problem(self, place: Place, message: str) -> None:
        self.problems.append(Problem(message, dotted(place), self.locations.where(place)))

    def model(self, data: Any) -> ModelDescription:
        if not self.mapping(data, (), _MODEL_KEYS):
            return ModelDescription((), locations=self.locations)
        return ModelDescription(
            layers=self.nodes(data, ()),
            name=self.text(data.get("name", "model"), ("name",)),
            inputs=self.model_inputs(data),
            blocks=self.blocks(data.get("blocks") or {}),
            outputs=self.names(data.get("outputs"), ("outputs",)) or (),
            locations=self.locations,
        )

    def mapping(self, data: Any, place: Place, known: Sequence[str]) -> bool:
        if not isinstance(data, Mapping):
            self.problem(place, f"expected a mapping with {', '.join(known)}, found {data!r:.60}")
            return False
        for key in data:
            if key not in known:
                self.problem((*place, key), f"unknown field. {nearest(str(key), known)}")
        return True

    def text(self, data: Any, place: Place) -> str:
        if isinstance(data, str):
            return data
        self.problem(place, f"expected text, found {data!r:.60}")
        return ""

    def identifier(self, data: Any, place: Place) -> str:
        if isinstance(data, str) and IDENTIFIER.fullmatch(data):
            return data
        self.problem(
            place, f"expected letters, digits, '_' or '-', a letter first, found {data!r:.60}"
        )
        return ""

    def names(self, data: Any, place: Place) -> tuple[str, ...] | None:
        """A list of references; a single one may stand without the brackets."""
        if data is None:
            return None
        if isinstance(data, str):
            return (data,)
        if not isinstance(data, (list, tuple)) or not data:
            self.problem(place, f"expected a list of ids, found {data!r:.60}")
            return None
        return tuple(self.text(item, (*place, i)) for i, item in enumerate(data))

    def model_inputs(self, data: Mapping[str, Any]) -> dict[str, InputDescription]:
        if "input" in data and "inputs" in data:
            self.problem(("inputs",), "give either 'input' (one) or 'inputs' (several by name)")
        if "inputs" not in data:
            return {"input": self.input(data.get("input"), ("input",))}
        inputs = data["inputs"]
        if not isinstance(inputs, Mapping) or not inputs:
            self.problem(
                ("inputs",), f"expected a mapping from names to inputs, found {inputs!r:.60}"
            )
            return {"input": InputDescription()}
        return {
            self.identifier(name, ("inputs", name)): self.input(item, ("inputs", name))
            for name, item in inputs.items()
        }

    def input(self, data: Any, place: Place) -> InputDescription:
        if data is None or not self.mapping(data, place, _INPUT_KEYS):
            return InputDescription()
        sizes: dict[str, int] = {}
        for key in _INPUT_KEYS:
            size = data.get(key)
            if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                sizes[key] = size
            elif size is not None:
                self.problem((*place, key), f"expected an integer greater than 0, found {size!r}")
        return InputDescription(**sizes)

    def blocks(self, data: Any) -> dict[str, BlockDescription]:
        if not isinstance(data, Mapping):
            self.problem(
                ("blocks",), f"expected a mapping from names to blocks, found {data!r:.60}"
            )
            return {}
        found = {}
        for name, block in data.items():
            place = ("blocks", name)
            self.identifier(name, place)
            if not self.mapping(block, place, _BLOCK_KEYS):
                block = {}
            arguments = block.get("arguments") or {}
            if not isinstance(arguments, Mapping):
                self.problem((*place, "arguments"), f"expected a mapping, found {arguments!r:.60}")
                arguments = {}
            inputs = self.names(block.get("inputs"), (*place, "inputs")) or ("input",)
            for clash in set(inputs) & set(arguments):
                self.problem(
                    (*place, "arguments", clash), "is the name of an input as well; rename it"
                )
            found[name] = BlockDescription(
                layers=self.nodes(block, place),
                arguments=dict(arguments),
                inputs=inputs,
                outputs=self.names(block.get("outputs"), (*place, "outputs")) or (),
            )
        return found

    def nodes(self, data: Mapping[str, Any], place: Place) -> tuple[NodeDescription, ...]:
        place = (*place, "layers")
        nodes = data.get("layers")
        if not isinstance(nodes, (list, tuple)) or not nodes:
            self.problem(place, f"expected a list of layers, found {nodes!r:.60}")
            return ()
        found = [self.node(node, (*place, i)) for i, node in enumerate(nodes)]
        return tuple(node for node in found if node is not None)

    def node(self, data: Any, place: Place) -> NodeDescription | None:
        if isinstance(data, str):
            return NodeDescription(data, place=place)
        layers = [k for k in data if k not in _NODE_KEYS] if isinstance(data, Mapping) else []
        if len(layers) != 1:
            self.problem(
                place,
                "expected a layer's name, or {NAME: {field: value}} with optional id, inputs and "
                f"share, found {f'{len(layers)} names: ' + ', '.join(layers) if layers else repr(data)}",
            )
            return None
        layer = layers[0]
        config = data[layer]
        if config is not None and not isinstance(config, Mapping):
            self.problem((*place, layer), f"expected a mapping of fields, found {config!r:.60}")
            config = None
        share = data.get("share")
        return NodeDescription(
            layer=layer,
            config=dict(config or {}),
            id=self.identifier(data["id"], (*place, "id")) if "id" in data else None,
            inputs=self.names(data.get("inputs"), (*place, "inputs")),
            share=None if share is None else self.text(share, (*place, "share")),
            place=place,
        )

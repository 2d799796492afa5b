"""ModelDescription: what a model file says, read into frozen data, with every error at once.

A description holds names and numbers only: no expressions, no conditions, no code. Blocks are kept as
blocks, so that a description dumps as it was written; expand.py unrolls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphnet.description.inputs import (
    BOTH,
    INPUT_DTYPES,
    NAME,
    SHAPE_WORDS,
    SIZE_WORDS,
    InputDescription,
    is_shape,
    is_size,
)
from graphnet.description.yamlfile import (
    MAX_DEPTH,
    MAX_VALUES,
    Locations,
    Place,
    dotted,
    dump,
    read_file,
    read_text,
)
from graphnet.errors import DescriptionError, Problem, nearest, shown

Schema = dict[str, Any]


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


@dataclass(frozen=True)
class BlockDescription:
    """A reusable piece of graph: its arguments with their defaults (None: must be given)."""

    layers: tuple[NodeDescription, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("input",)
    outputs: tuple[str, ...] = ()


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
        inputs = _write(self.inputs)
        always = {"name": self.name, **(inputs if [*inputs] == ["input"] else {"inputs": inputs})}
        rest = {key: form for key, form in MODEL.items() if key not in ("name", "input", "inputs")}
        return always | _plain(self, ModelDescription(()), rest)

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

    Args:
        data: the content of a model file: mappings, lists, texts and numbers.
        locations: the lines of the file, for errors.
        problems: a list to which faults are added, so that the caller can go on and find more.

    Raises:
        DescriptionError: there are faults and `problems` is not given; the error holds all of them.

    >>> parse({"layers": ["relu"]}).layers[0].layer
    'relu'
    """
    locations = locations or Locations()
    if message := _too_large(data):
        raise DescriptionError([Problem(message, where=locations.where(()))])
    reader = _Parser(locations)
    description = reader.model(data)
    if problems is not None:
        problems.extend(reader.problems)
    elif reader.problems:
        raise DescriptionError(reader.problems)
    return description


def _too_large(data: Any) -> str:
    """Say which limit plain data exceeds; an empty text if none. Data that contains itself has no end."""
    left, count = [(data, 0)], 0
    while left:
        value, depth = left.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            limit = f"{MAX_VALUES:,} values" if count > MAX_VALUES else f"{MAX_DEPTH} levels"
            return f"expected at most {limit}"
        if isinstance(value, Mapping):
            left += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, (list, tuple)):
            left += [(item, depth + 1) for item in value]
    return ""


def _plain(record: object, blank: object, table: Mapping[str, Form]) -> dict[str, Any]:
    """A description's fields as plain data, without optional fields at their default."""
    values = {key: (getattr(record, key), getattr(blank, key)) for key in table}
    return {
        key: _write(value)
        for key, (value, default) in values.items()
        if table[key].required or value != default
    }


def _write(value: Any) -> Any:
    match value:
        case InputDescription():
            return _plain(value, InputDescription(), INPUT)
        case BlockDescription():
            return _plain(value, BlockDescription(()), BLOCK)
        case NodeDescription(layer=layer, config=config):
            own = _plain(value, NodeDescription(layer), NODE)
            if not own and not config:
                return layer
            first = {"id": own.pop("id")} if "id" in own else {}
            return {**first, layer: dict(config), **own}
        case Mapping():
            known = (InputDescription, BlockDescription)
            return {k: _write(v) if isinstance(v, known) else v for k, v in value.items()}
        case tuple():
            return [_write(item) for item in value]
    return value


class _Parser:
    """Walks plain data. Each method records what is wrong, and returns None in its place."""

    def __init__(self, locations: Locations) -> None:
        self.locations = locations
        self.problems: list[Problem] = []

    def problem(self, place: Place, message: str) -> None:
        self.problems.append(Problem(message, dotted(place), self.locations.where(place)))

    def wrong(self, place: Place, expected: str, data: Any) -> None:
        self.problem(place, f"expected {expected}, found {shown(data)}")

    def model(self, data: Any) -> ModelDescription:
        if isinstance(data, Mapping) and "layers" not in data and {"model", "data"} <= data.keys():
            message = "this is a training file, for `graphnet train`. A model file is expected here"
            also = f", such as {data['model']}" if isinstance(data["model"], str) else ""
            self.problem((), f"{message}{also}.")
            return ModelDescription(layers=(), locations=self.locations)
        values = self.record(data, (), MODEL)
        one = values.pop("input", None)
        if one is not None:
            if "inputs" in values:
                self.problem(("inputs",), "give either 'input' (one) or 'inputs' (several by name)")
            values.setdefault("inputs", {"input": one})
        return ModelDescription(**{"layers": (), **values}, locations=self.locations)

    def record(self, data: Any, place: Place, table: Mapping[str, Form]) -> dict[str, Any]:
        """The values of a mapping's fields that are given and right; null counts as not given."""
        if not isinstance(data, Mapping):
            self.wrong(place, f"a mapping with {', '.join(table)}", data)
            return {}
        for key in data:
            if key not in table:
                self.problem((*place, key), f"unknown field. {nearest(str(key), table)}")
        values = {
            key: form.read(self, data.get(key), (*place, key))
            for key, form in table.items()
            if form.required or data.get(key) is not None
        }
        return {key: value for key, value in values.items() if value is not None}

    def named(self, data: Any, place: Place) -> Iterator[tuple[str, Any, Place]]:
        """The things of a mapping from names to things, each with its place."""
        if not isinstance(data, Mapping):
            self.wrong(place, f"a mapping from names to {place[-1]}", data)
            return
        for name, item in data.items():
            IDENTIFIER.read(self, name, (*place, name))
            yield name, item, (*place, name)

    def references(self, data: Any, place: Place) -> tuple[str, ...] | None:
        if isinstance(data, str):
            return (data,)
        if not isinstance(data, (list, tuple)) or not data:
            self.wrong(place, "a list of ids", data)
            return None
        return tuple(TEXT.read(self, item, (*place, i)) or "" for i, item in enumerate(data))

    def input(self, data: Any, place: Place) -> InputDescription:
        values = {} if data is None else self.record(data, place, INPUT)
        if "shape" in values and len(values.keys() - {"dtype"}) > 1:
            self.problem((*place, "shape"), BOTH)
            values.pop("shape")
        return InputDescription(**values)

    def shape(self, data: Any, place: Place) -> tuple[int | str, ...] | None:
        if is_shape(data):
            return tuple(data)
        self.wrong(place, SHAPE_WORDS, data)
        return None

    def inputs(self, data: Any, place: Place) -> dict[str, InputDescription] | None:
        found = {name: self.input(item, at) for name, item, at in self.named(data, place)}
        if data == {}:
            self.wrong(place, "a mapping from names to inputs", data)
        return found or None

    def blocks(self, data: Any, place: Place) -> dict[str, BlockDescription]:
        return {name: self.block(item, at) for name, item, at in self.named(data, place)}

    def block(self, data: Any, place: Place) -> BlockDescription:
        block = BlockDescription(**{"layers": (), **self.record(data, place, BLOCK)})
        for clash in set(block.inputs) & set(block.arguments):
            self.problem((*place, "arguments", clash), "is the name of an input as well; rename it")
        return block

    def nodes(self, data: Any, place: Place) -> tuple[NodeDescription, ...] | None:
        if not isinstance(data, (list, tuple)) or not data:
            self.wrong(place, "a list of layers", data)
            return None
        found = [self.node(node, (*place, i)) for i, node in enumerate(data)]
        return tuple(node for node in found if node is not None)

    def node(self, data: Any, place: Place) -> NodeDescription | None:
        if isinstance(data, str):
            return NodeDescription(data, place=place)
        layers = [key for key in data if key not in NODE] if isinstance(data, Mapping) else []
        if len(layers) != 1:
            found = f"{len(layers)} names: {', '.join(layers[:4])}" if layers else shown(data)
            if layers and data[layers[0]] is None:
                found += f". To make the others fields of {layers[0]}, indent them below it"
            form = f"{{NAME: {{field: value}}}} with optional {', '.join([*NODE][:-1])}"
            form += f" and {[*NODE][-1]}"
            self.problem(place, f"expected a layer's name, or {form}, found {found}")
            return None
        layer = layers[0]
        config = {} if data[layer] is None else CONFIG.read(self, data[layer], (*place, layer))
        own = {key: data[key] for key in data if key in NODE}
        return NodeDescription(
            layer, dict(config or {}), place=place, **self.record(own, place, NODE)
        )


@dataclass(frozen=True)
class Form:
    """What a field may contain: how it is read, and its JSON Schema."""

    read: Callable[[_Parser, Any, Place], Any]
    schema: Schema
    required: bool = False


def _plain_form(expected: str, fits: Callable[[Any], bool], schema: Schema) -> Form:
    """What is a value by itself."""

    def read(parser: _Parser, data: Any, place: Place) -> Any:
        if fits(data):
            return data
        parser.wrong(place, expected, data)
        return None

    return Form(read, schema)


def record_schema(table: Mapping[str, Form]) -> Schema:
    """The JSON Schema of a mapping with these fields; null counts as a missing field."""
    return {
        "type": "object",
        "properties": {key: _or_null(form) for key, form in table.items()},
        "required": [key for key, form in table.items() if form.required],
        "additionalProperties": False,
    }


def _or_null(form: Form) -> Schema:
    return form.schema if form.required else {"anyOf": [form.schema, {"type": "null"}]}


def _named(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": {"anyOf": [schema, {"type": "null"}]}}


# The grammar of a model file: each field of each mapping, as it is read, written and told to editors.
TEXT = _plain_form("text", lambda data: isinstance(data, str), {"type": "string"})
IDENTIFIER = _plain_form(
    "letters, digits, '_' or '-', a letter first",
    lambda data: isinstance(data, str) and NAME.fullmatch(data) is not None,
    {"type": "string", "pattern": f"^{NAME.pattern}$"},
)
SIZE = _plain_form(SIZE_WORDS, is_size, {"type": "integer", "minimum": 1})
CONFIG = _plain_form(
    "a mapping of fields", lambda data: isinstance(data, Mapping), {"type": "object"}
)
REFERENCES = Form(
    _Parser.references,
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ],
        "description": "ids of nodes, id.output, or $input",
    },
)
LAYERS = Form(
    _Parser.nodes,
    {"type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1},
    required=True,
)
SHAPE = Form(
    _Parser.shape,
    {
        "type": "array",
        "items": {"anyOf": [SIZE.schema, IDENTIFIER.schema]},
        "description": "the axes after the batch: sizes, or names of sizes that are free",
    },
)
DTYPE = _plain_form(
    ", ".join(INPUT_DTYPES),
    lambda data: isinstance(data, str) and data in INPUT_DTYPES,
    {"enum": [*INPUT_DTYPES]},
)
INPUT = {"channels": SIZE, "height": SIZE, "width": SIZE, "shape": SHAPE, "dtype": DTYPE}
NODE = {"id": IDENTIFIER, "inputs": REFERENCES, "share": TEXT}
BLOCK = {"arguments": CONFIG, "inputs": REFERENCES, "layers": LAYERS, "outputs": REFERENCES}
MODEL = {
    "name": TEXT,
    "input": Form(_Parser.input, record_schema(INPUT)),
    "inputs": Form(_Parser.inputs, {**_named(record_schema(INPUT)), "minProperties": 1}),
    "blocks": Form(_Parser.blocks, _named(record_schema(BLOCK))),
    "layers": LAYERS,
    "outputs": REFERENCES,
}

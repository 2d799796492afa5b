"""The JSON Schema of model files, made from what is registered."""

from __future__ import annotations

from typing import Any

from graphnet.sdk import Registry, summary

_ID = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"}
_REFERENCES = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ],
    "description": "ids of nodes, id.output, or $input",
}
_INPUT = {
    "type": ["object", "null"],
    "properties": {
        key: {"type": "integer", "minimum": 1} for key in ("channels", "height", "width")
    },
    "additionalProperties": False,
}


def model_schema(registry: Registry) -> dict[str, Any]:
    """The schema of a model file: every registered layer with its fields.

    A block's name stands where a layer's does, so other names are allowed with any fields; a block's
    "$argument" stands where any value does.
    """
    definitions: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for name, entry in registry.layers.items():
        schema = entry.value.schema()
        definitions.update(schema.pop("$defs", {}))
        schema["properties"] = {
            field: {"anyOf": [value, {"type": "string", "pattern": r"^\$"}]}
            for field, value in schema.get("properties", {}).items()
        }
        schema["description"] = summary(entry.value)
        schema["type"] = ["object", "null"]
        named[name] = schema
    node = {
        "anyOf": [
            {"type": "string", "examples": list(registry.layers)},
            {
                "type": "object",
                "properties": {
                    "id": _ID,
                    "inputs": _REFERENCES,
                    "share": {"type": "string"},
                    **named,
                },
                "additionalProperties": {"type": ["object", "null"]},
                "minProperties": 1,
                "maxProperties": 4,
            },
        ]
    }
    layers = {"type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1}
    block = {
        "type": "object",
        "properties": {
            "arguments": {"type": "object"},
            "inputs": _REFERENCES,
            "layers": layers,
            "outputs": _REFERENCES,
        },
        "required": ["layers"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "graphnet model",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "input": _INPUT,
            "inputs": {"type": "object", "additionalProperties": _INPUT, "minProperties": 1},
            "blocks": {"type": "object", "additionalProperties": block},
            "layers": layers,
            "outputs": _REFERENCES,
        },
        "required": ["layers"],
        "additionalProperties": False,
        "$defs": {**definitions, "node": node},
    }

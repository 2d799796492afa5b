"""The JSON Schema of model files: the grammar of model.py, and every registered layer."""

from __future__ import annotations

from typing import Any

from graphnet.description.model import MODEL, NODE, record_schema
from graphnet.sdk import Registry, summary


def model_schema(registry: Registry) -> dict[str, Any]:
    """The schema of a model file: every registered layer with its fields.

    A block is used like a layer, so other names are allowed, with any fields; a block's "$argument" may
    replace any value.
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
    alone = {"type": "string", "examples": list(registry.layers)}
    node = record_schema(NODE)
    node["properties"].update(named)
    node["additionalProperties"] = {"type": ["object", "null"]}
    sizes = {"minProperties": 1, "maxProperties": len(NODE) + 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "graphnet model",
        **record_schema(MODEL),
        "$defs": {**definitions, "node": {"anyOf": [alone, {**node, **sizes}]}},
    }

"""Description: a model file becomes frozen data, with every error at once.

YAML text or plain data comes in; a ModelDescription, its expansion, loss terms and update settings go out.
It imports the SDK and below.
"""

from __future__ import annotations

from graphnet.description.expand import expand
from graphnet.description.flat import Expanded, FlatNode, Reference
from graphnet.description.inputs import NAME, InputDescription, as_shape, check_inputs, check_shapes
from graphnet.description.loss_terms import LossTerm, loss_terms, losses_for, term_names
from graphnet.description.model import (
    BlockDescription,
    ModelDescription,
    NodeDescription,
    parse,
    parse_text,
    read_description,
)
from graphnet.description.readers import read_model
from graphnet.description.schema import model_schema
from graphnet.description.update_settings import UpdateSettings, split_updates
from graphnet.description.yamlfile import (
    Locations,
    Place,
    dotted,
    dump,
    read_file,
    read_text,
    undotted,
)

__all__ = [
    "NAME",
    "BlockDescription",
    "Expanded",
    "FlatNode",
    "InputDescription",
    "Locations",
    "LossTerm",
    "ModelDescription",
    "NodeDescription",
    "Place",
    "Reference",
    "UpdateSettings",
    "as_shape",
    "check_inputs",
    "check_shapes",
    "dotted",
    "dump",
    "expand",
    "loss_terms",
    "losses_for",
    "model_schema",
    "parse",
    "parse_text",
    "read_description",
    "read_file",
    "read_model",
    "read_text",
    "split_updates",
    "term_names",
    "undotted",
]

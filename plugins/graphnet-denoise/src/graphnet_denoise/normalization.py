"""Normalization: networks that know the range of their images, as the first and the last of their layers.

Such a network takes the numbers of a file as they are, such as 0..4095, and returns such. x becomes
(x - mean) / deviation, the network denoises that, and its result y becomes deviation * y + mean. So the file
of a model holds all that a program needs. Other models take 0..1 from black to white.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphnet.description import ModelDescription
from graphnet.model import Model

NORMALIZED = "normalized"
"""The node whose output is the normalized image."""


def with_normalization(
    network: Mapping[str, Any], *, channels: int, mean: float, deviation: float
) -> dict[str, Any]:
    """Describe a network on the numbers of files; `network` is the plain data of one on normalized images."""
    name = str(network["name"])
    return {
        "name": "learned",
        "input": {"channels": channels},
        "blocks": {**network.get("blocks", {}), name: {"layers": network["layers"]}},
        "layers": [
            {"id": "centred", "add_scalar": {"value": -mean}},
            {"id": NORMALIZED, "rescale": {"factor": 1 / deviation}},
            {"id": "denoised", name: {}},
            {"id": "rescaled", "rescale": {"factor": deviation}},
            {"id": "result", "add_scalar": {"value": mean}},
        ],
    }


def normalization_of(description: ModelDescription) -> tuple[float, float] | None:
    """The mean and the deviation by which a network normalizes its images; None if it takes 0..1."""
    values = {node.id: node.config for node in description.layers}
    if NORMALIZED not in values:
        return None
    return -float(values["centred"]["value"]), float(values["rescaled"]["factor"])


def knows_range(description: ModelDescription) -> bool:
    """Whether a network normalizes its images itself, so that it takes the numbers of a file as they are."""
    return any(node.id == NORMALIZED for node in description.layers)


def takes_numbers(model: object) -> bool:
    """Whether a model takes the numbers of a file as they are; other denoisers take 0..1."""
    return isinstance(model, Model) and knows_range(model.description)

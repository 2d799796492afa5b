"""Normalization: networks that know the range of their images, as the first and the last of their layers.

Such a network takes the numbers of a file as they are, such as 0..4095, and returns such. x becomes
z = (x - mean) / deviation, of which the network sees s, cut off at limits, and makes y. The result is
x + deviation (y - s). So a hot pixel does not disturb its surroundings, and keeps its brightness. Without
limits, the result is deviation y + mean, which is the same with s = z. The file of a model holds all that a
program needs. Other models take 0..1 from black to white.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphnet.description import ModelDescription
from graphnet.model import Model

NORMALIZED = "normalized"
"""The node whose output is the normalized image."""


def with_normalization(
    network: Mapping[str, Any],
    *,
    channels: int,
    mean: float,
    deviation: float,
    limits: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Describe a network on the numbers of files.

    Args:
        network: the plain data of a network on normalized images.
        channels: of the images.
        mean, deviation: what is subtracted from the numbers, and by what the rest is divided.
        limits: the lowest and the highest number that the network sees; None for all.
    """
    name = str(network["name"])
    normalized = [
        {"id": "centred", "add_scalar": {"value": -mean}},
        {"id": NORMALIZED, "rescale": {"factor": 1 / deviation}},
    ]
    rescaled = {"id": "rescaled", "rescale": {"factor": deviation}}
    if limits is None:
        added = {"id": "result", "add_scalar": {"value": mean}}
        layers = [*normalized, {"id": "denoised", name: {}}, rescaled, added]
    else:
        low, high = ((limit - mean) / deviation for limit in limits)
        layers = [
            *normalized,
            {"id": "seen", "hardtanh": {"min_val": low, "max_val": high}},
            {"id": "denoised", name: {}},
            {"id": "change", "subtract": {}, "inputs": ["denoised", "seen"]},
            rescaled,
            {"id": "result", "add": {}, "inputs": ["$input", "rescaled"]},
        ]
    return {
        "name": "learned",
        "input": {"channels": channels},
        "blocks": {**network.get("blocks", {}), name: {"layers": network["layers"]}},
        "layers": layers,
    }


def normalization_of(description: ModelDescription) -> tuple[float, float] | None:
    """The mean and the deviation by which a network normalizes its images; None if it takes 0..1."""
    if not knows_range(description):
        return None
    values = {node.id: node.config for node in description.layers}
    return -float(values["centred"]["value"]), float(values["rescaled"]["factor"])


def knows_range(description: ModelDescription) -> bool:
    """Whether a network normalizes its images itself, so that it takes the numbers of a file as they are."""
    return any(node.id == NORMALIZED for node in description.layers)


def takes_numbers(model: object) -> bool:
    """Whether a model takes the numbers of a file as they are; other denoisers take 0..1."""
    return isinstance(model, Model) and knows_range(model.description)

"""ModelFile: what a reader returns for a file: a model's description, and its weights if there are any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from graphnet.errors import nearest
from graphnet.sdk.registry import Registry

_DISTRIBUTIONS = {".onnx": "graphnet-onnx"}  # of this project, but not of this distribution


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model as a file holds it.

    Args:
        description: plain data as a YAML model file holds it, or a graphnet.description.ModelDescription.
        weights: the tensors by name, such as "conv.weight"; None if the file has none.

    >>> file = ModelFile({"layers": ["relu"]})
    >>> file.description["layers"], file.weights
    (['relu'], None)
    """

    description: Any
    weights: Mapping[str, Tensor] | None = None


def ending_advice(ending: str, known: Iterable[str], registry: Registry) -> str:
    """What an error says of a file's ending that no plugin knows: the ending, known ones, what to install.

    Args:
        ending: the ending, such as ".onnx"; empty if the name has none.
        known: the endings that are known.
        registry: has the plugins, of which some may not be loaded.

    >>> ending_advice(".yml", [".yaml"], Registry())
    "a name that ends in .yml. Did you mean '.yaml'?"
    >>> ending_advice(".onnx", [], Registry())
    'a name that ends in .onnx. Run: pip install graphnet-onnx. None is known.'
    """
    found = f"a name that ends in {ending}" if ending else "a name without an ending"
    broken = [p for p in registry.plugins if p.status != "loaded"]
    parts = [f"{found}."]
    owner = _DISTRIBUTIONS.get(ending)
    if owner is not None and owner not in [p.distribution for p in broken]:
        parts.append(f"Run: pip install {owner}.")
    parts.append(nearest(ending, known))
    if broken:
        parts.append(f"Plugins that are not loaded: {' '.join(p.told for p in broken)}")
    return " ".join(parts)

"""ModelFile: what a reader returns for a file: a model's description, and its weights if there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


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

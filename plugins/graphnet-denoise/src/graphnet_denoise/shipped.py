"""The models that come with this distribution, and which of them an image gets.

`gaussian` is for noise that was added to the picture itself, independent from pixel to pixel; `camera` is for
photographs as cameras save them, and for all other noise that neighbouring pixels or channels share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

import graphnet
from graphnet_denoise.noise.measure import FoundNoise, measure_noise
from graphnet_denoise.restoring import Restorer

FOLDER = Path(__file__).parent / "models"
BLIND = FOLDER / "blind.safetensors"
"""For photos in colour with Gaussian noise of any strength: the model where those of MODELS are missing."""
Kind = Literal["gaussian", "camera"]
MODELS: dict[Kind, Path] = {
    "gaussian": FOLDER / "gaussian.safetensors",
    "camera": FOLDER / "camera.safetensors",
}
"""The file of each model."""
PHOTOS = MODELS["camera"] if MODELS["camera"].exists() else BLIND
"""The model for photographs of which nothing more is known, such as those that other programs open."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model for an image, and the noise that was found in the image."""

    kind: Kind
    restorer: Restorer
    noise: FoundNoise

    def describe(self) -> str:
        """Say what noise was found, and which model removes it."""
        return f"noise: {self.noise.describe()}; model: {self.kind}"


@dataclass(frozen=True)
class Shipped:
    """Restorers of the included models, each made when an image needs it.

    Args:
        noise: the kind of model for all images; "auto" chooses one for each image, from its noise.
        settings: the arguments of Restorer.of besides the model.
    """

    noise: Literal["gaussian", "camera", "auto"] = "auto"
    settings: dict[str, Any] = field(default_factory=dict)
    _restorers: dict[Kind, Restorer] = field(default_factory=dict, compare=False, repr=False)

    def choose(self, image: Tensor) -> Choice:
        """Measure the noise of an image, float (C, H, W) in 0..1, or of a part of it, and choose a model."""
        found = measure_noise(image)
        kind: Kind = "gaussian" if found.is_independent else "camera"
        if self.noise != "auto":
            kind = self.noise
        return Choice(kind, self.restorer(kind), found)

    def restorer(self, kind: Kind) -> Restorer:
        """The restorer of one of the models."""
        if kind not in self._restorers:
            self._restorers[kind] = Restorer.of(graphnet.load(MODELS[kind]), **self.settings)
        return self._restorers[kind]

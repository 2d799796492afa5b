"""The models that come with this distribution, and which of them an image gets.

`gaussian` is for noise that was added to the picture itself, independent from pixel to pixel; `camera` is for
photographs as cameras save them, and for all other noise that neighbouring pixels or channels share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

import graphnet
from graphnet_denoise.models import MODELS, Kind, Noise
from graphnet_denoise.noise.measure import FoundNoise, measure_noise
from graphnet_denoise.restoring import Restorer, Settings


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
        settings: how they denoise.
    """

    noise: Noise = "auto"
    settings: Settings = Settings()
    _models: dict[Kind, graphnet.Model] = field(default_factory=dict, compare=False, repr=False)
    _restorers: dict[Kind, Restorer] = field(default_factory=dict, compare=False, repr=False)

    def choose(self, image: Tensor) -> Choice:
        """Measure the noise of an image (C, H, W) or of parts of it (N, C, H, W), and choose a model."""
        found = measure_noise(image)
        kind: Kind = "gaussian" if found.is_independent else "camera"
        if self.noise != "auto":
            kind = self.noise
        return Choice(kind, self.restorer(kind), found)

    def model(self, kind: Kind) -> graphnet.Model:
        """One of the models."""
        if kind not in self._models:
            self._models[kind] = graphnet.load(MODELS[kind])
        return self._models[kind]

    def restorer(self, kind: Kind) -> Restorer:
        """The restorer of one of the models."""
        if kind not in self._restorers:
            self._restorers[kind] = Restorer.of(self.model(kind), self.settings)
        return self._restorers[kind]

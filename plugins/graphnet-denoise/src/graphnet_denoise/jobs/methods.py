"""Methods: how images are denoised: by a trained model, one of the included ones, or one for each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from graphnet.model import Model
from graphnet_denoise.jobs.cutting import Reach, find_reach
from graphnet_denoise.models import MODELS
from graphnet_denoise.restoring import Look, Restorer, Settings, fitted
from graphnet_denoise.shipped import Shipped
from graphnet_denoise.zeroshot import train_on_image

Advance = Callable[[float], None]
"""Called with the share of a part that is done, 0..1."""


class Method(Protocol):
    """How images, float32 (N, C, h, w), are denoised part by part."""

    @property
    def takes_numbers(self) -> bool:
        """Whether images are denoised as the numbers of their file, not as 0..1."""

    def takes(self, channels: int) -> bool:
        """Whether a model takes so many channels together."""

    def reach(self) -> Reach | None:
        """What a part needs around it; None if images cannot be cut."""

    def look(self, images: Tensor) -> Look:
        """Find in whole images, or in windows of one, what the denoising of their parts needs."""

    def restore(
        self, part: Tensor, look: Look, corner: tuple[int, int], advance: Advance
    ) -> Tensor:
        """Denoise a part that begins at this row and column; the result is not clamped."""


@dataclass
class ByModel:
    """A trained model, and how it restores; `noise_level` is told to one that takes it."""

    model: Model
    restorer: Restorer
    noise_level: float | None = None
    _reach: list[Reach | None] = field(default_factory=list)

    @property
    def takes_numbers(self) -> bool:
        return self.restorer.takes_numbers

    def takes(self, channels: int) -> bool:
        wanted = self.model.input_channels
        return wanted is None or channels in (wanted, wanted - (self.noise_level is not None))

    def reach(self) -> Reach | None:
        if not self._reach:
            options = replace(self.restorer.settings.options, memory=None)
            channels = self.model.input_channels or 3
            self._reach.append(find_reach(self.model, channels, self.restorer.divisor, options))
        return self._reach[0]

    def look(self, images: Tensor) -> Look:
        return self.restorer.look(images, self.noise_level)

    def restore(
        self, part: Tensor, look: Look, corner: tuple[int, int], advance: Advance
    ) -> Tensor:
        return self.restorer.restore_part(part, look, self.noise_level, corner=corner)


@dataclass
class ByNoise:
    """The included models: each image gets one of them, by the noise that is measured in it."""

    shipped: Shipped
    _reach: list[Reach | None] = field(default_factory=list)

    @property
    def takes_numbers(self) -> bool:
        return False

    def takes(self, channels: int) -> bool:
        return channels == 3

    def reach(self) -> Reach | None:
        if not self._reach:
            models = (
                ByModel(self.shipped.model(kind), self.shipped.restorer(kind)) for kind in MODELS
            )
            first, *others = (each.reach() for each in models)
            for other in others:
                first = first.joined(other) if first and other else None
            self._reach.append(first)
        return self._reach[0]

    def look(self, images: Tensor) -> Look:
        choice = self.shipped.choose(images)
        look = choice.restorer.look(images)
        return replace(look, note=choice.describe(), kind=choice.kind, noise=choice.noise)

    def restore(
        self, part: Tensor, look: Look, corner: tuple[int, int], advance: Advance
    ) -> Tensor:
        assert look.kind is not None
        return self.shipped.restorer(look.kind).restore_part(part, look, corner=corner)


@dataclass
class ByImage:
    """A network that is trained on each image itself (zeroshot.py), for so many steps."""

    network: Model
    steps: int
    settings: Settings

    @property
    def takes_numbers(self) -> bool:
        return False

    def takes(self, channels: int) -> bool:
        return self.network.input_channels in (None, channels)

    def reach(self) -> Reach | None:
        return None  # the training sees the whole image

    def look(self, images: Tensor) -> Look:
        unknown = images.new_zeros(len(images))
        return Look(unknown.bool(), unknown)

    def restore(
        self, part: Tensor, look: Look, corner: tuple[int, int], advance: Advance
    ) -> Tensor:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            advance(done / self.steps)

        image = fitted(part, self.network.input_channels)
        # The memory bounds the prediction, not the training.
        unbound = replace(self.settings.options, memory=None)
        trained = train_on_image(
            self.network, image, steps=self.steps, options=unbound, advance=step
        )
        restorer = Restorer.of(trained, self.settings)
        return restorer.restore_part(part, restorer.look_repeated(part))

"""Whole images with noise, the same in each measurement, on which models are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import NonNegativeInt
from torch import Tensor

from graphnet.errors import DescriptionError, Problem
from graphnet.sdk import DataSet, Gallery
from graphnet_denoise.bank import CLEAN, Pixels, read_bank
from graphnet_denoise.draws import Draws
from graphnet_denoise.noise import NOISES, Noise, check_level
from graphnet_denoise.supervision import Views, as_tensor


class WholeImages(DataSet):
    """Clean images of any sizes, and the same images with noise, for measuring a model.

    Attributes:
        path: a folder of images, or an .npz or .npy of (N, C, H, W).
        noise: the noise that is added.
        seed: with the number of an image, it determines the noise of the image.
        noise_level_map: whether the input has one more channel, which holds the noise's standard deviation
            (1 for 255).
        channels: 1 makes all images grey, 3 makes them colour.
    """

    path: str
    noise: Annotated[Noise, pydantic.BeforeValidator(NOISES.field)]
    seed: NonNegativeInt = 0
    noise_level_map: bool = False
    channels: Literal[1, 3] | None = None

    def __post_init__(self) -> None:
        if self.noise.smallest_block > 1:
            message = (
                f"{type(self.noise).__name__} makes small images of large ones, so whole images cannot "
                f"have it; measure on the data set photos, with target: clean"
            )
            raise DescriptionError([Problem(message, "noise")])
        if self.noise_level_map:
            check_level(self.noise)

    def load(self) -> NoisyGallery:
        """Decode the images. Raises DataError if there is none, or if one is damaged."""
        return NoisyGallery(
            self, read_bank([Path(self.path)], keys=CLEAN, channels=self.channels, side=1)
        )


@dataclass(frozen=True)
class NoisyGallery(Gallery):
    """The images of a WholeImages data set; an image gets its noise when it is read."""

    whole: WholeImages
    images: Sequence[Pixels]

    @property
    def channels(self) -> int:
        return int(self.images[0].shape[2])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        def draws(stream: int) -> Draws:
            return Draws(self.whole.seed, 0, [index], stream=stream)

        whole, pixels = self.whole, self.images[index]
        size = pixels.shape[:2]
        views = Views.of([pixels], size, whole.noise, draws, level_map=whole.noise_level_map)
        return views.as_input(views.noisy())[0], as_tensor(views.clean)[0]

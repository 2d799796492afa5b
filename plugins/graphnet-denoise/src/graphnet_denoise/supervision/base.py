"""Supervision: how batches are made, and the images from which they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet.errors import ContractError, DescriptionError, Problem
from graphnet.sdk import Definition, Shape
from graphnet_denoise.draws import NOISE, STRENGTH, SUPERVISION, Draws
from graphnet_denoise.noise import Images, Noise, Scenes


@dataclass(frozen=True)
class Views:
    """The images of some pairs, from which a supervision makes a batch: (N, H, W, C), in 0..1 before noise.

    Without noise, the images themselves are noisy, and none is clean: each has one version, or two if
    `second` has other noisy images of the same scenes.
    """

    scenes: Scenes
    noise: Noise | None
    draws: Callable[[int], Draws]
    level_map: bool
    second: Scenes | None = None

    @classmethod
    def of(
        cls,
        crops: Sequence[NDArray[Any]],
        size: tuple[int, int],
        noise: Noise | None,
        draws: Callable[[int], Draws],
        *,
        level_map: bool,
    ) -> Self:
        """Make views of crops as images of a size (H, W), with a strength of the noise for each image."""
        strength = noise.strength(draws(STRENGTH)) if noise else {}
        return cls(Scenes(crops, size, strength), noise, draws, level_map)

    @property
    def clean(self) -> Images:
        assert self.noise is not None
        return self.noise.clean(self.scenes)

    def noisy(self, version: int = 0) -> Images:
        """Make noisy images; another version has noise of the same strength, drawn independently."""
        if self.noise is None:
            images = (self.scenes, self.second)[version]
            assert images is not None
            return images.clean
        return self.noise(self.scenes, self.draws(NOISE + version))

    def mean_of(self, count: int) -> Images:
        """Make the mean of `count` noisy images of each scene, none of them that of `noisy(0)`."""
        if self.noise is None:
            return self.noisy(1)
        return self.noise.mean_of(count, self.scenes, self.draws(NOISE + 1))

    def own(self) -> Draws:
        """Random numbers for the supervision's own use."""
        return self.draws(SUPERVISION)

    def as_input(self, images: Images) -> Tensor:
        """The images as the network takes them, with the noise level as one more channel if it takes one."""
        if self.level_map:
            assert self.noise is not None
            assert self.noise.level is not None
            level = self.scenes.strength[self.noise.level] / np.float32(255)
            images = with_level(images, level)
        return as_tensor(images)


class Supervision(Definition):
    """How batches are made from views. `single` says that one noisy version of each image is enough."""

    single: ClassVar[bool] = False

    def side(self, size: int) -> int:
        """The side of the images on which the network is trained, for patches of this size."""
        return size

    def target_shapes(self, shape: Shape) -> Mapping[str, Shape]:
        """The shape of each tensor that the loss takes besides the prediction, by argument name."""
        return {"target": shape}

    def make(self, views: Views) -> tuple[Tensor, ...]:
        """Make the input, then the targets, (N, C, H, W); or the tensors from which `finish` makes them."""
        raise ContractError(f"{type(self).__name__} defines no make(views)")

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Any], progress: float
    ) -> tuple[Tensor, ...]:
        """See graphnet.Stream.finish."""
        return batch


def halved(size: int, name: str) -> int:
    """Return half of a patch's size, for a supervision; raises DescriptionError if the size is odd."""
    if size % 2:
        message = f"{name} halves patches: expected an even number, found {size}"
        raise DescriptionError([Problem(message, "size")])
    return size // 2


def as_tensor(images: Images) -> Tensor:
    """Return (N, H, W, C) as (N, C, H, W), in the same memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def with_level(images: Images, level: NDArray[np.float32]) -> Images:
    """Add a channel to images, which has the image's number in `level` (N,) at all pixels."""
    n, h, w, _ = images.shape
    return np.concatenate((images, np.broadcast_to(level[:, None, None, None], (n, h, w, 1))), -1)

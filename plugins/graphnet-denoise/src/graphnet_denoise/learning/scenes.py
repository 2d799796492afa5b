"""The data sets of `graphnet learn`: patches of one's own noisy images, and patches that are held out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import DataSet, Pairs, Shape, Stream
from graphnet_denoise.draws import GEOMETRY, Draws
from graphnet_denoise.learning.extremes import within
from graphnet_denoise.learning.frames import as_numbers
from graphnet_denoise.learning.pixel_weights import pixel_weights
from graphnet_denoise.learning.scene_images import Pixels, SceneImages, read_scenes
from graphnet_denoise.noise import Scenes
from graphnet_denoise.patches import turned
from graphnet_denoise.supervision import (
    SUPERVISIONS,
    Noise2Noise,
    Noise2Void,
    Supervision,
    Views,
    as_tensor,
)

_COUNTED = 0.01  # pixels that count less in training do not count in the held-out score
_HELD_MASKED = 0.04  # the share of hidden pixels, when single images are measured


class OwnScenes(DataSet):
    """Patches cut from one's own noisy images, of which some are known to show the same scene.

    Attributes:
        path: the list of images that `graphnet learn` writes, scenes.json.
        size: the side of a patch.
        per_epoch: the number of patches in an epoch.
        supervision: noise2noise where each scene has several images, else one for single noisy images.
        augment: whether patches are flipped and turned by right angles.
        weighted: whether pixels count by what can be known of them (pixel_weights.py), for the loss
            masked_mse; with noise2noise and noise2void.
    """

    path: str
    size: PositiveInt = 64
    per_epoch: PositiveInt = 20_000
    supervision: Annotated[Supervision, pydantic.BeforeValidator(SUPERVISIONS.field)]
    augment: bool = True
    weighted: bool = False

    def load(self) -> SceneStream:
        """Read the images. Raises DataError if one cannot be read, or is smaller than a patch."""
        images = read_scenes(Path(self.path))
        smallest = min(min(scene[0].shape[:2]) for scene in images.scenes)
        if smallest < self.size:
            raise DataError(
                f"{self.path}: the smallest image has a side of {smallest} pixels, a patch {self.size}. Set "
                f"a smaller size, or leave out small images."
            )
        if not self.supervision.single and min(map(len, images.scenes)) < 2:
            raise DataError(
                f"{self.path}: {type(self.supervision).__name__} needs two images of each scene. Set another "
                f"supervision, such as noise2void."
            )
        if self.weighted:
            if not isinstance(self.supervision, Noise2Noise | Noise2Void):
                raise DataError(
                    f"{self.path}: weighted: expected the supervision noise2noise or noise2void, found "
                    f"{type(self.supervision).__name__}. Set weighted: false."
                )
            if images.noise is None:
                raise DataError(
                    f"{self.path}: weighted: expected the list to state the noise. Set weighted: false."
                )
        return SceneStream(self, images, images.to_train(self.size))


@dataclass(frozen=True)
class SceneStream(Stream):
    """The patches of an OwnScenes data set."""

    own: OwnScenes
    images: SceneImages
    scenes: Sequence[Sequence[Pixels]]

    def __len__(self) -> int:
        return self.own.per_epoch

    @property
    def input_shape(self) -> Shape:
        side = self.own.supervision.side(self.own.size)
        return (int(self.scenes[0][0].shape[2]), side, side)

    @property
    def target_shapes(self) -> Mapping[str, Shape]:
        shapes = self.own.supervision.target_shapes(self.input_shape)
        return {**shapes, "mask": self.input_shape} if self.own.weighted else shapes

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        def draws(stream: int) -> Draws:
            return Draws(seed, epoch, indices, stream=stream)

        first, second = self._crops(draws(GEOMETRY))
        size = (self.own.size, self.own.size)
        views = Views(Scenes(first, size, {}), None, draws, False, Scenes(second, size, {}))
        made = self.own.supervision.make(views)
        if not self.own.weighted:
            return made
        shown, target, *mask = made
        assert self.images.noise is not None
        weights = pixel_weights(shown, target, self.images.noise)
        return shown, target, weights * mask[0] if mask else weights

    def source(self) -> Iterable[Pixels]:
        return itertools.chain.from_iterable(self.scenes)

    def finish(
        self, batch: tuple[Tensor, ...], predict: Callable[[Tensor], Any], progress: float
    ) -> tuple[Tensor, ...]:
        return self.own.supervision.finish(batch, predict, progress)

    def _crops(self, draws: Draws) -> tuple[list[Pixels], list[Pixels]]:
        """For each pair, a patch of one image of a scene, and the mean of the same patch of other ones.

        Both are the same where a scene has one image.
        """
        size, count = self.own.size, draws.count
        supervision = self.own.supervision
        targets = supervision.targets if isinstance(supervision, Noise2Noise) else 1
        chosen = draws.below(np.full(count, len(self.scenes)))
        shapes = np.array([self.scenes[i][0].shape[:2] for i in chosen])
        tops, lefts = (draws.below(shapes[:, axis] - size + 1) for axis in (0, 1))
        turns = draws.below(np.full(count, 8 if self.own.augment else 1))
        firsts, seconds = [], []
        where = zip(chosen, draws.uniform(2), tops, lefts, turns, strict=True)
        for i, uniform, top, left, turn in where:
            images = self.scenes[i]
            cut = slice(top, top + size), slice(left, left + size)
            at, others = self.images.chosen(len(images), uniform, targets=targets)
            first, *rest = (self._numbers(turned(images[i][cut], turn)) for i in (at, *others))
            firsts.append(first)
            seconds.append(rest[0] if len(rest) == 1 else np.mean(rest, axis=0))
        return firsts, seconds

    def _numbers(self, pixels: Pixels) -> NDArray[np.float32]:
        return within(as_numbers(pixels), self.images.limits)


class HeldOut(DataSet):
    """The patches that `scenes` leaves out, with noisy targets, for the metric `held_out_psnr`.

    Where a scene has several images, the target is another image of it. Single images are measured as in
    Noise2Void: some pixels are replaced, and the target has only these; all others are NaN.

    Attributes:
        path: the list of images that `graphnet learn` writes, scenes.json.
        size: the side of a patch, as in `scenes`.
        hidden: as in noise2void.
    """

    path: str
    size: PositiveInt = 64
    hidden: tuple[int, int] = pydantic.Field(default=(0, 0), strict=False)

    def load(self) -> Pairs:
        """Read the images. Raises DataError if they are too small or too few to hold out a part."""
        images = read_scenes(Path(self.path))
        tiles = images.held_out(self.size)
        if not tiles:
            raise DataError(
                f"{self.path}: the images are too small and too few to hold out a part. Leave out "
                f"data.validation and metrics."
            )
        tiles = [[within(as_numbers(t), images.limits) for t in tile] for tile in tiles]
        pairs = self._pairs(images, tiles)
        if images.noise is None:
            return pairs
        counted = pixel_weights(pairs.inputs, pairs.targets, images.noise) > _COUNTED
        return Pairs(pairs.inputs, torch.where(counted, pairs.targets, torch.nan))

    def _pairs(self, images: SceneImages, tiles: Sequence[Sequence[Pixels]]) -> Pairs:
        if min(map(len, tiles)) > 1:
            chosen = [images.chosen(len(tile), np.zeros(2, np.float32)) for tile in tiles]
            inputs = [tile[at] for tile, (at, _) in zip(tiles, chosen, strict=True)]
            targets = [tile[others[0]] for tile, (_, others) in zip(tiles, chosen, strict=True)]
            return Pairs(_stacked(inputs), _stacked(targets))
        return hide_pixels([tile[0] for tile in tiles], hidden=self.hidden)


def hide_pixels(images: Sequence[Pixels], *, hidden: tuple[int, int] = (0, 0)) -> Pairs:
    """Replace some pixels of images (H, W, C) of one size; the targets are the pixels, and NaN elsewhere."""
    height, width = images[0].shape[:2]

    def draws(stream: int) -> Draws:
        return Draws(0, 0, range(len(images)), stream=stream)

    numbers = [as_numbers(image) for image in images]
    views = Views(Scenes(numbers, (height, width), {}), None, draws, False)
    blind = Noise2Void(masked=_HELD_MASKED, hidden=hidden)
    shown, noisy, mask = blind.make(views)
    return Pairs(shown, torch.where(mask > 0, noisy, torch.nan))


def _stacked(images: Sequence[Pixels]) -> Tensor:
    return as_tensor(np.stack([as_numbers(image) for image in images]))

"""The data sets of `graphnet learn`: patches of one's own noisy images, and patches that are held out."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import DataError
from graphnet.sdk import DataSet, Pairs, Shape, Stream
from graphnet.system import write_text
from graphnet_denoise.draws import GEOMETRY, Draws
from graphnet_denoise.learning.arrangement import Arrangement
from graphnet_denoise.learning.frames import Frame, as_numbers, read_frame
from graphnet_denoise.noise import Scenes
from graphnet_denoise.patches import turned
from graphnet_denoise.sampling import evenly
from graphnet_denoise.supervision import (
    SUPERVISIONS,
    Noise2Noise,
    Noise2Void,
    Supervision,
    Views,
    as_tensor,
)

Pixels = NDArray[Any]
"""(H, W, C): uint8, uint16, or float32; the numbers are those of the file."""

EVERY = 8
"""Of small images, one of so many scenes is held out."""

_TILES = 256  # held-out patches at most
_HELD_MASKED = 0.04  # the share of hidden pixels, when single images are measured
_LARGEST = 1 << 30  # bytes of images in memory; of more, some scenes are left out

Split = Literal["rows", "scenes", "nothing"]
"""What is held out: the lowest rows of each image, whole scenes, or nothing."""


@dataclass(frozen=True)
class SceneImages:
    """The images of some scenes, in memory.

    Attributes:
        scenes: the images of each scene; a single image is a scene of its own.
        neighbours: whether only images that follow one another are compared, as in a movie.
        ordered: whether the last image of a scene can only be a target.
    """

    scenes: Sequence[Sequence[Pixels]]
    neighbours: bool
    ordered: bool

    def split(self, size: int) -> Split:
        """What can be held out for patches of this size."""
        if min(min(images[0].shape[:2]) for images in self.scenes) < size:
            return "nothing"
        if min(images[0].shape[0] for images in self.scenes) >= 2 * size:
            return "rows"
        return "scenes" if len(self.scenes) >= EVERY else "nothing"

    def to_train(self, size: int) -> list[list[Pixels]]:
        """The images without the part that is held out."""
        match self.split(size):
            case "rows":
                return [[image[:-size] for image in images] for images in self.scenes]
            case "scenes":
                return [[*images] for i, images in enumerate(self.scenes) if (i + 1) % EVERY]
        return [[*images] for images in self.scenes]

    def held_out(self, size: int) -> list[list[Pixels]]:
        """Patches of the part that is held out, at most 256: the images (size, size, C) of each."""
        split = self.split(size)
        kept = self.scenes if split == "rows" else self.scenes[EVERY - 1 :: EVERY]
        tiles = [] if split == "nothing" else [t for images in kept for t in _tiles(images, size)]
        return [tiles[i] for i in evenly(len(tiles), _TILES)]

    def chosen(
        self, count: int, draws: NDArray[np.float32], *, targets: int = 1
    ) -> tuple[int, list[int]]:
        """Choose of a scene's `count` images the input, and up to `targets` targets, by two uniforms.

        A scene whose images differ in more than noise, as in a movie, has one target.
        """
        if count == 1:
            return 0, [0]
        first, second = (float(draw) for draw in draws)
        if self.ordered:
            return int(first * (count - 1)), [count - 1]
        if self.neighbours:
            at = int(first * (count - 1))
            return (at, [at + 1]) if second < 0.5 else (at + 1, [at])
        at, others = int(first * count), count - 1
        start = int(second * others)
        steps = ((start + step) % others for step in range(min(targets, others)))
        return at, [(at + 1 + step) % count for step in steps]


def _tiles(images: Sequence[Pixels], size: int) -> list[list[Pixels]]:
    """The patches side by side in the lowest rows."""
    width = images[0].shape[1]
    lefts = range(0, width - size + 1, size)
    return [[image[-size:, left : left + size] for image in images] for left in lefts]


def write_scenes(path: Path, folder: Path, arrangement: Arrangement) -> None:
    """Write which images belong together, for the data set `scenes`."""
    data = {
        "folder": str(folder.resolve()),
        "kind": arrangement.kind,
        "ordered": arrangement.ordered,
        "scenes": [[_named(frame, folder) for frame in scene] for scene in arrangement.scenes],
    }
    write_text(path, json.dumps(data, indent=1) + "\n")


def _named(frame: Frame, folder: Path) -> list[str | int]:
    inside = frame.file.relative_to(folder) if frame.file != folder else Path()
    return [str(inside), frame.plane]


@functools.lru_cache(maxsize=1)  # training and held-out patches are cut from the same images
def read_scenes(path: Path) -> SceneImages:
    """Read the images of a file that `write_scenes` wrote.

    Raises DataError if it has another form, or an image cannot be read, or has other channels than the rest.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        folder = Path(data["folder"])
        groups = [
            [Frame(folder / name if name != "." else folder, int(plane)) for name, plane in scene]
            for scene in data["scenes"]
        ]
        neighbours, ordered = data["kind"] == "movie", bool(data["ordered"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the list of images that `graphnet learn` writes, found another file "
            f"({error!r})."
        ) from error
    if not groups or not all(groups):
        raise DataError(f"{path}: lists no images.")
    first = as_pixels(groups[0][0])
    room = max(1, _LARGEST // max(1, first.nbytes * len(groups[0])))
    chosen = evenly(len(groups), room)
    scenes = [[as_pixels(frame) for frame in groups[i]] for i in chosen]
    for i, images in zip(chosen, scenes, strict=True):
        for frame, image in zip(groups[i], images, strict=True):
            if image.shape[2] != first.shape[2] or image.shape != images[0].shape:
                raise DataError(
                    f"{frame}: has the shape {image.shape}, the other images have {images[0].shape} and "
                    f"{first.shape[2]} channels. Put images of other channels into a folder of their own."
                )
    return SceneImages(scenes, neighbours, ordered)


def as_pixels(frame: Frame) -> Pixels:
    """Read an image as (H, W, C); uint8 and uint16 stay as they are, everything else becomes float32."""
    native = read_frame(frame)
    pixels = native if native.dtype in (np.uint8, np.uint16) else as_numbers(native)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


class OwnScenes(DataSet):
    """Patches cut from one's own noisy images, of which some are known to show the same scene.

    Attributes:
        path: the list of images that `graphnet learn` writes, scenes.json.
        size: the side of a patch.
        per_epoch: the number of patches in an epoch.
        supervision: noise2noise where each scene has several images, else one for single noisy images.
        augment: whether patches are flipped and turned by right angles.
    """

    path: str
    size: PositiveInt = 64
    per_epoch: PositiveInt = 20_000
    supervision: Annotated[Supervision, pydantic.BeforeValidator(SUPERVISIONS.field)]
    augment: bool = True

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
        return self.own.supervision.target_shapes(self.input_shape)

    def batch(self, seed: int, epoch: int, indices: Sequence[int]) -> tuple[Tensor, ...]:
        def draws(stream: int) -> Draws:
            return Draws(seed, epoch, indices, stream=stream)

        first, second = self._crops(draws(GEOMETRY))
        size = (self.own.size, self.own.size)
        views = Views(Scenes(first, size, {}), None, draws, False, Scenes(second, size, {}))
        return self.own.supervision.make(views)

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
            first, *rest = (as_numbers(turned(images[i][cut], turn)) for i in (at, *others))
            firsts.append(first)
            seconds.append(rest[0] if len(rest) == 1 else np.mean(rest, axis=0))
        return firsts, seconds


class HeldOut(DataSet):
    """The patches that `scenes` leaves out, with noisy targets, on which the metric `held_out` is measured.

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

"""The images of scenes, in memory: which of them belong together, and which part is held out."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphnet.errors import DataError
from graphnet.system import write_text
from graphnet_denoise.images import open_image
from graphnet_denoise.learning.arrangement import Arrangement
from graphnet_denoise.learning.extremes import Limits
from graphnet_denoise.learning.frames import Frame, ImageSource, Native, as_numbers, source_of
from graphnet_denoise.learning.regions import MEMORY, Region, Scene, choose_regions, held_dtype
from graphnet_denoise.sampling import evenly

Pixels = NDArray[Any]
"""(H, W, C): uint8, uint16, or float32; the numbers are those of the file."""

EVERY = 8
"""Of small images, one of so many scenes is held out."""

_TILES = 256  # held-out patches at most

Split = Literal["rows", "scenes", "nothing"]
"""What is held out: the lowest rows of each image, whole scenes, or nothing."""


@dataclass(frozen=True)
class SceneImages:
    """The images of some scenes, or regions of them, in memory.

    Attributes:
        scenes: the images of each scene or region; a single image is a scene of its own.
        neighbours: whether only images that follow one another are compared, as in a movie.
        ordered: whether the last image of a scene can only be a target.
        limits: the lowest and the highest number that a network sees; None for all.
        noise: the standard deviation of the noise, where it is known.
    """

    scenes: Sequence[Sequence[Pixels]]
    neighbours: bool
    ordered: bool
    limits: Limits | None = None
    noise: float | None = None

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


def write_scenes(
    path: Path,
    folder: Path,
    arrangement: Arrangement,
    *,
    limits: Limits | None = None,
    noise: float | None = None,
    memory: int = MEMORY,
) -> None:
    """Write which images belong together and what holds for all of them, for the data sets here.

    Args:
        path: the file to write.
        folder: where the images are.
        arrangement: which of them belong together.
        limits, noise: as in SceneImages.
        memory: the bytes that the images may take when they are read; of more, regions are drawn.
    """
    data = {
        "folder": str(folder.resolve()),
        "kind": arrangement.kind,
        "ordered": arrangement.ordered,
        "limits": limits,
        "noise": noise,
        "memory": memory,
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
        low_high, noise = data.get("limits"), data.get("noise")
        limits = None if low_high is None else (float(low_high[0]), float(low_high[1]))
        noise = None if noise is None else float(noise)
        memory = int(data.get("memory", MEMORY))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path}: expected the list of images that `graphnet learn` writes, found another file "
            f"({error!r})."
        ) from error
    if not groups or not all(groups):
        raise DataError(
            f"{path}: expected a list of images, found an empty one. Run `graphnet learn` again."
        )
    regions = choose_regions(_scenes(groups), memory).regions
    return SceneImages(_read(regions), neighbours, ordered, limits, noise)


def _scenes(groups: Sequence[Sequence[Frame]]) -> list[Scene]:
    """Describe scenes by the files' headers. Raises DataError if the sizes or channels of images differ."""
    sources: dict[Path, ImageSource] = {}
    for file in dict.fromkeys(frame.file for group in groups for frame in group):
        with open_image(file) as opened:
            sources[file] = source_of(opened)
    first = sources[groups[0][0].file].shape
    for group in groups:
        expected = sources[group[0].file]
        for frame in group:
            found = sources[frame.file]
            if found.shape[0] != first[0] or found.shape != expected.shape:
                raise DataError(
                    f"{frame}: expected the shape {expected.shape} of its scene and {first[0]} channels, "
                    f"found {found.shape}. Put images of other channels into a folder of their own."
                )
    return [Scene.of(group, sources) for group in groups]


def _read(regions: Sequence[Region]) -> list[list[Pixels]]:
    """Read the images of each region, file by file: formats that are decoded as a whole are decoded once."""
    wanted: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for number, region in enumerate(regions):
        for place, frame in enumerate(region.frames):
            wanted[frame.file].append((number, place))
    read: dict[tuple[int, int], Pixels] = {}
    for file, places in wanted.items():
        with open_image(file) as source:
            for number, place in sorted(places, key=lambda at: regions[at[0]].frames[at[1]]):
                region = regions[number]
                native = source.read(region.frames[place].plane, region.rows, region.columns)
                read[number, place] = as_pixels(native)
    return [[read[n, k] for k in range(len(region.frames))] for n, region in enumerate(regions)]


def as_pixels(native: Native) -> Pixels:
    """An image (C, H, W) as (H, W, C), in the dtype in which it is held."""
    pixels = native if held_dtype(native.dtype) == native.dtype else as_numbers(native)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))

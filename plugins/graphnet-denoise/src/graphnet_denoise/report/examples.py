"""Examples: the images that a report shows, in the numbers of their files, and how they are denoised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphnet.sdk import Gallery, Pairs, as_unit, default_registry
from graphnet_denoise.applying import restore_pixels
from graphnet_denoise.images import Levels, open_image, upright
from graphnet_denoise.jobs.opened import ranges_of
from graphnet_denoise.learning.scene_images import read_scenes
from graphnet_denoise.learning.scenes import HeldOut
from graphnet_denoise.ranges import Range, find_range
from graphnet_denoise.report.pictures import Pictured
from graphnet_denoise.report.run import Run
from graphnet_denoise.restoring import Restorer
from graphnet_denoise.sampling import middle

SIDE = 384
"""The largest side of an image in a report; of a larger one, the middle is shown."""

_UNIT = Range(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Example:
    """A noisy image.

    Args:
        name: what the page calls it.
        noisy: its pixels (C, H, W), in its own numbers.
        range: which of these numbers are black and white.
        target: what the validation compares with, of the same shape and range; None if there is none.
        noise_level: the level in 255ths, for a model that takes it as an input.
        orientation: the EXIF orientation of its file; the image is denoised as stored, and shown upright.
    """

    name: str
    noisy: NDArray[Any]
    range: Range = _UNIT
    target: NDArray[Any] | None = None
    noise_level: float | None = None
    orientation: int = 1

    def values(self) -> Tensor:
        """The noisy image (1, C, H, W), 0 for black and 1 for white."""
        return torch.from_numpy(self.range.values(self.noisy))[None]

    def denoise(self, restorer: Restorer) -> Pictured:
        """Denoise the image with a model."""
        if self.noise_level is None:
            restored = restore_pixels(restorer, self.noisy, self.range)
        else:
            restored = restorer.restore(self.values(), noise_level=self.noise_level).cpu()
        target = None if self.target is None else self._shown(self.range.values(self.target))
        return Pictured(
            self.name,
            self._shown(self.values()[0].numpy()),
            self._shown(restored[0].numpy()),
            target,
        )

    def _shown(self, pixels: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(upright(pixels, self.orientation)))


def read_example(path: Path, *, side: int = SIDE, channels: int | None = None) -> Example:
    """Read the middle of an image file, of at most `side` pixels on each side; of a stack, the first image.

    All channels of a picture are read, and all of an image with as many `channels` as a model takes. Of
    other images, whose channels do not belong together, the first channel is read.
    """
    with open_image(path) as source:
        taken = source.channels if source.channels in (1, 3, channels) else 1
        rows, columns = middle(source.height, side), middle(source.width, side)
        pixels = source.read(0, rows, columns)
        return Example(
            path.name,
            pixels[:taken],
            ranges_of(source, together=taken > 1)[0],
            orientation=source.metadata.orientation,
        )


def validation_examples(run: Run, *, numbers: bool) -> Iterator[Example]:
    """The images of the validation set that the run's training file names; none if it names none.

    Args:
        run: the run.
        numbers: whether the model takes the numbers of files, whose range is then found from the images.
    """
    data: Any = run.config.get("data", {})
    form = data.get("validation")
    if form is None:
        return
    dataset = default_registry().dataset(form)
    if isinstance(
        dataset, HeldOut
    ):  # its patches are small; the images that they are cut from say more
        for number, scene in enumerate(read_scenes(Path(dataset.path)).scenes):
            pixels = scene[0].transpose(2, 0, 1)
            yield _cut(f"image {number + 1}", pixels, None, numbers=numbers)
        return
    pairs: Any = dataset.load()
    if isinstance(pairs, Gallery):
        both = (pairs[number] for number in range(len(pairs)))
    elif isinstance(pairs, Pairs):
        both = ((pairs.inputs[number], pairs.targets[number]) for number in range(len(pairs)))
    else:
        return
    for number, (noisy, target) in enumerate(both):
        images = (as_unit(one, torch.float32).numpy() for one in (noisy, target))
        yield _cut(f"image {number + 1}", *images, numbers=numbers)


def _cut(name: str, noisy: NDArray[Any], target: NDArray[Any] | None, *, numbers: bool) -> Example:
    """The middle of an image; channels that its target has not are a map of the noise level."""
    channels = len(noisy if target is None else target)
    level = noisy[channels:]
    place = (slice(channels), middle(noisy.shape[1], SIDE), middle(noisy.shape[2], SIDE))
    seen = np.ascontiguousarray(noisy[place])
    whole = numbers or noisy.dtype.kind != "f"
    return Example(
        name,
        seen,
        find_range(seen, Levels.of(seen.dtype)) if whole else _UNIT,
        None if target is None or np.isnan(target).any() else np.ascontiguousarray(target[place]),
        float(level.flat[0]) * 255 if len(level) else None,
    )

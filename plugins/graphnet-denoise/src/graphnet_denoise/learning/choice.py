"""Choose how a network learns from the images of a folder, by what they are and how their noise is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphnet.errors import DataError
from graphnet_denoise.learning.arrangement import Arrangement
from graphnet_denoise.learning.extremes import Limits
from graphnet_denoise.learning.frames import ImageSource
from graphnet_denoise.learning.scene_images import EVERY
from graphnet_denoise.learning.statistics import NoiseStatistics

CORRELATED = 0.25
"""Noise of neighbouring pixels with this correlation is structured; less may be a rest of the picture."""

_REACHES = 0.1  # hidden pixels reach as far as the correlation is above this
_STRIPES = 0.3  # a correlation that is still above this at the last distance
_FARTHEST = 2  # pixels in both directions that can be hidden
_MASKED = 0.11  # the share of the pixels that are predicted; with 0.015, training takes many times as long
_HIDDEN = 0.15  # the share of the pixels that are hidden with their neighbours
_TARGETS = 16  # images of a burst whose mean is a target; more make little difference
_ROUNDING = 0.29  # the deviation of rounding to integers
_LEAST_NOISE = 1e-3  # times the deviation of the images
_SIDES = (64, 48, 32, 16)


@dataclass(frozen=True)
class Choice:
    """How a network learns, and why, in words.

    Attributes:
        supervision: the form of the supervision for a training file.
        hidden: the rows and columns around a pixel that are hidden with it.
        loss: the loss.
        network: the name of the network among those in this package.
        channels: of the images.
        size: the side of the patches.
        held_out: whether a part of the images is left out, and the model measured on it.
        mean, deviation: the normalization of the images, in the numbers of their file.
        limits: the lowest and the highest number that the network sees, None for all.
        noise: the standard deviation of the noise.
        peak: the range from black to white, in the numbers of their file.
        learns: the reason of the supervision, as a sentence.
    """

    supervision: str | Mapping[str, Any]
    hidden: tuple[int, int]
    loss: str
    network: str
    channels: int
    size: int
    held_out: bool
    mean: float
    deviation: float
    limits: Limits | None
    noise: float
    peak: float
    learns: str


def choose(
    sources: Sequence[ImageSource],
    arrangement: Arrangement,
    noise: NoiseStatistics,
    *,
    peak: float,
    limits: Limits | None,
) -> Choice:
    """Choose how to learn. Raises DataError where no way leads to clean images, and says why."""
    channels = {source.shape[0] for source in sources}
    if len(channels) > 1:
        raise DataError(
            f"the folder has images of {' and of '.join(map(str, sorted(channels)))} channels. Put each kind "
            f"into a folder of its own."
        )
    integers = all(source.dtype.kind in "iu" for source in sources)
    smallest = min(min(source.shape[1:]) for source in sources)
    if smallest < _SIDES[-1]:
        raise DataError(
            f"the smallest image has a side of {smallest} pixels; expected at least {_SIDES[-1]}. "
            f"Leave it out."
        )
    height = min(source.shape[1] for source in sources)
    fitting = [side for side in _SIDES if side <= smallest]
    watched = [
        side for side in fitting if 2 * side <= height or len(arrangement.scenes) >= EVERY
    ]  # leave room for patches that are held out
    supervision, hidden, learns = _supervision(arrangement, noise)
    return Choice(
        supervision=supervision,
        hidden=hidden,
        loss="masked_mse",
        network="unet",
        channels=channels.pop(),
        size=(watched or fitting)[0],
        held_out=bool(watched),
        mean=noise.mean,
        deviation=max(noise.spread, 1e-12),
        limits=limits,
        noise=max(noise.level, _ROUNDING * integers, _LEAST_NOISE * noise.spread),
        peak=peak,
        learns=learns,
    )


def _supervision(
    arrangement: Arrangement, noise: NoiseStatistics
) -> tuple[str | Mapping[str, Any], tuple[int, int], str]:
    if arrangement.repeated:
        several = arrangement.kind == "bursts" and max(map(len, arrangement.scenes)) > 2
        form = {"noise2noise": {"targets": _TARGETS}} if several else "noise2noise"
        return form, (0, 0), _why_pairs(arrangement, noise)
    rows, columns = _reach(noise.along_columns), _reach(noise.along_rows)
    if not rows and not columns:
        why = (
            "Noise2Void: the network predicts hidden pixels from those around them, since there is one image "
            "of each scene, and its noise is independent from pixel to pixel"
        )
        return {"noise2void": {"masked": _MASKED}}, (0, 0), why
    _check_hideable(noise, rows, columns)
    where = " and ".join(
        words
        for reach, words in ((columns, "along the rows"), (rows, "along the columns"))
        if reach
    )
    bar = f"{2 * rows + 1} x {2 * columns + 1}"
    why = (
        f"Noise2Void with a mask (structN2V): the noise of neighbouring pixels is correlated {where}, so a "
        f"block of {bar} pixels is hidden around each pixel that is predicted"
    )
    return (
        {"noise2void": {"masked": _masked(rows, columns), "hidden": [rows, columns]}},
        (rows, columns),
        why,
    )


def _masked(rows: int, columns: int) -> float:
    """The share of the pixels that are predicted, if so many rows and columns around each are hidden too."""
    hidden = (2 * rows + 1) * (2 * columns + 1)
    return min(_MASKED, round(_HIDDEN / hidden, 4))


def _why_pairs(arrangement: Arrangement, noise: NoiseStatistics) -> str:
    what = {
        "pairs": "both images of a pair show one scene",
        "bursts": "the images of a burst show one scene",
        "movie": "frames that follow one another show one scene",
    }.get(arrangement.kind, "several images show one scene")
    why = f"Noise2Noise: {what}, and their noise is independent of each other"
    if arrangement.ordered:
        why = f"Noise2Noise towards the image with less noise: {what}"
    elif arrangement.kind == "bursts":
        why = f"Noise2Noise, one image towards the mean of the others: {what}, and their noise is independent"
    if max(noise.along_rows[0], noise.along_columns[0]) > CORRELATED:
        why += "; noise that is correlated between pixels does no harm here"
    return why


def _reach(correlations: Sequence[float]) -> int:
    """The distance up to which the noise is correlated, 0 if it is independent."""
    if correlations[0] < CORRELATED:
        return 0
    below = [i for i, value in enumerate(correlations) if value < _REACHES]
    return below[0] if below else len(correlations)


def _check_hideable(noise: NoiseStatistics, rows: int, columns: int) -> None:
    """Raise DataError for correlated noise that a mask cannot hide."""
    remedy = (
        "Give two or more images of each scene (pairs, a burst, a movie that stands still): then correlated "
        "noise does no harm"
    )
    lines = (("rows", columns, noise.along_rows), ("columns", rows, noise.along_columns))
    for name, reach, correlations in lines:
        if reach and correlations[-1] > _STRIPES:
            raise DataError(
                f"the noise has stripes along the {name}: pixels {len(correlations)} apart still have the "
                f"correlation {correlations[-1]:.2f}. In one image alone, such stripes cannot be "
                f"distinguished from the picture. {remedy}, or remove the stripes first, such as by "
                f"subtracting the median of each of the {name}."
            )
    if min(rows, columns) > 0 and max(rows, columns) > _FARTHEST:
        raise DataError(
            f"the noise is correlated in both directions, over up to {max(rows, columns)} pixels "
            f"(neighbours: {noise.along_rows[0]:.2f} along the rows, {noise.along_columns[0]:.2f} along the "
            f"columns). Too many pixels would have to be hidden. {remedy}. Or give the images as the camera "
            f"recorded them, before they were scaled or compressed."
        )

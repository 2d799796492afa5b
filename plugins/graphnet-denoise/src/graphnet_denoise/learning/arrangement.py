"""Find out how the images of a folder belong together: pairs, bursts, movies, stacks or single images.

The names of files and folders and the axes of TIFF files propose groups of images that may show one scene.
The pictures decide: a group counts only if its images correlate, and they can be compared with one another
only if the scene stands still between them.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphnet_denoise.learning.extremes import picture_limits, within
from graphnet_denoise.learning.frames import Frame, ImageSource, as_numbers, read_frame
from graphnet_denoise.learning.sameness import (
    LEAST_SIDE,
    SIDE,
    Comparison,
    Drift,
    compare_images,
    measure_drift,
)
from graphnet_denoise.learning.statistics import Image, noise_statistics
from graphnet_denoise.sampling import evenly

Kind = Literal["pairs", "bursts", "movie", "stack", "singles"]
Group = tuple[Frame, ...]

_SAMPLED = 8  # comparisons by which a proposal is judged
_AGREE = 0.75  # of these must find the same scene
_GROUPED = 0.8  # of the images must be in a group of two or more
_IN_RUNS = 0.5  # of a sequence's frames must be in runs that stand still
_LONGEST = 400  # frames of a sequence that are looked at
_WINDOWS = 8  # parts in which a longer sequence is looked at
_COMPARED = 4  # pairs of neighbours, and of images far apart in time, by which a run is judged
_MOVING = (
    0.02  # of the picture; where more moves between neighbours, images far apart are not compared
)
_LESS_NOISE = 0.5  # the second images of pairs are targets only if they have so much less

_LAST = re.compile(r"^(.*?)[ _.\-]*(\d+|[A-Za-z]+)$")
_FIRST = re.compile(r"^(\d+|[A-Za-z]+)[ _.\-]+(.*)$")


@dataclass(frozen=True)
class Arrangement:
    """How the images of a folder belong together.

    Attributes:
        kind: what they are. In a movie, a scene moves or changes, so only images that follow one another can
            be compared; in a burst, all images of a scene.
        scenes: the images that show one scene and stand still; a single image is a scene of its own.
        reason: why, as a part of a sentence.
        ordered: whether the last image of each scene has much less noise and can only be a target.
    """

    kind: Kind
    scenes: tuple[Group, ...]
    reason: str
    ordered: bool = False

    @property
    def repeated(self) -> bool:
        """Whether each scene has two images or more."""
        return all(len(scene) > 1 for scene in self.scenes)

    @property
    def noisy(self) -> list[Frame]:
        """The images that are to be denoised: all, or all but the targets."""
        scenes = (scene[:-1] if self.ordered else scene for scene in self.scenes)
        return [frame for scene in scenes for frame in scene]


def arrange(sources: Sequence[ImageSource]) -> Arrangement:
    """Find out how images belong together, by their names, axes, sizes and contents."""
    look = _Look()
    several = [source for source in sources if source.planes > 1]
    if several:
        return _arrange_planes(sources, several, look)
    frames = [source.frames[0] for source in sources]
    for propose, words in _PROPOSALS:
        groups = propose(frames)
        if _confirmed(groups, len(frames), look):
            return _arrange_groups(groups, frames, words, look)
    return _arrange_order(frames, look)


class _Look:
    """Reads and compares frames, and keeps the last ones that were read."""

    def __init__(self) -> None:
        self._kept: dict[Frame, Image] = {}

    def image(self, frame: Frame) -> Image:
        if frame not in self._kept:
            if len(self._kept) > 2:
                self._kept.pop(next(iter(self._kept)))
            image = as_numbers(read_frame(frame, side=SIDE))
            # The hot pixels of a camera are in all of its images, and would make them alike.
            self._kept[frame] = within(image, picture_limits([image]))
        return self._kept[frame]

    def compare(self, first: Frame, second: Frame) -> Comparison:
        return compare_images(self.image(first), self.image(second))

    def drift(self, run: Group) -> Drift:
        """Compare the first and the last images of a run with neighbours."""
        near = [(i, i + 1) for i in evenly(len(run) - 1, _COMPARED)]
        far = [(i, len(run) - 1 - i) for i in range(max(1, min(_COMPARED, len(run) // 4)))]
        pairs = ([(self.image(run[i]), self.image(run[j])) for i, j in at] for at in (near, far))
        return measure_drift(*pairs)


def _by_folder(frames: Sequence[Frame]) -> list[Group]:
    """Images of one name in several folders, such as noisy1/a.png and noisy2/a.png."""
    if len({frame.file.parent for frame in frames}) < 2:
        return []
    return _grouped(frames, lambda frame: frame.file.stem)


def _by_end(frames: Sequence[Frame]) -> list[Group]:
    """Images whose names differ in the last word or number, such as cell_a.png and cell_b.png."""
    return _by_pattern(frames, _LAST, 1)


def _by_start(frames: Sequence[Frame]) -> list[Group]:
    """Images whose names differ in the first word or number, such as a_cell.png and b_cell.png."""
    return _by_pattern(frames, _FIRST, 2)


_PROPOSALS: tuple[tuple[Callable[[Sequence[Frame]], list[Group]], str], ...] = (
    (_by_folder, "of one name in several folders"),
    (_by_end, "with names that differ at their end"),
    (_by_start, "with names that differ at their start"),
)


def _by_pattern(frames: Sequence[Frame], pattern: re.Pattern[str], part: int) -> list[Group]:
    def key(frame: Frame) -> object:
        match = pattern.match(frame.file.stem)
        return (frame.file.parent, match[part] if match else frame.file.stem)

    return _grouped(frames, key)


def _grouped(frames: Iterable[Frame], key: Callable[[Frame], object]) -> list[Group]:
    groups: dict[object, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _confirmed(groups: Sequence[Group], count: int, look: _Look) -> bool:
    """Whether neighbours in these groups show the same scene, and most images are in one of them."""
    if sum(map(len, groups)) < _GROUPED * count or not groups:
        return False
    neighbours = [pair for group in groups for pair in itertools.pairwise(group)]
    chosen = [neighbours[i] for i in evenly(len(neighbours), _SAMPLED)]
    same = [look.compare(*pair).same for pair in chosen]
    return sum(same) >= _AGREE * len(same)


def _arrange_groups(
    groups: Sequence[Group], frames: Sequence[Frame], words: str, look: _Look
) -> Arrangement:
    if max(map(len, groups)) > 2:
        return _arrange_sequences(groups, f"images {words}", look)
    sampled = [look.compare(*groups[i][:2]) for i in evenly(len(groups), _SAMPLED)]
    still = [found.still for found in sampled]
    if sum(still) < _AGREE * len(still):
        shift = float(np.median([found.shift for found in sampled if not found.still]))
        reason = (
            f"there are {len(groups)} pairs {words}, but the scene moves between their images (by about "
            f"{shift:.1f} pixels), so each image counts alone"
        )
        return Arrangement("singles", tuple((frame,) for frame in frames), reason)
    reason = f"{len(groups)} pairs {words}; both images of a pair show one scene that stands still"
    groups, ordered = _towards_less_noise(groups, look)
    if ordered:
        reason += ", and one has much less noise"
    return Arrangement("pairs", tuple(groups), reason, ordered)


def _towards_less_noise(groups: Sequence[Group], look: _Look) -> tuple[Sequence[Group], bool]:
    """Put the image with much less noise at the second place of each pair, if it is always the same one."""
    ratios = []
    for i in evenly(len(groups), _SAMPLED):
        first, second = (noise_statistics([look.image(frame)]).level for frame in groups[i][:2])
        ratios.append((second + 1e-12) / (first + 1e-12))
    if max(ratios) < _LESS_NOISE:
        return groups, True
    if min(ratios) > 1 / _LESS_NOISE:
        return [group[::-1] for group in groups], True
    return groups, False


def _arrange_planes(
    sources: Sequence[ImageSource], several: Sequence[ImageSource], look: _Look
) -> Arrangement:
    """Arrange files that hold several images."""
    count = sum(source.planes for source in several)
    files = f"{len(several)} file{'s' if len(several) > 1 else ''} of {count} images"
    alone = tuple((frame,) for source in sources for frame in source.frames)
    if all(source.order == "Z" for source in several):
        reason = f"{files} along the axis Z: slices of a volume, each another scene"
        return Arrangement("stack", alone, reason)
    found = _arrange_sequences([tuple(s.frames) for s in several], files, look)
    if found.repeated or any(source.order == "T" for source in several):
        return found
    neighbours = [pair for source in several for pair in itertools.pairwise(source.frames)]
    sampled = [look.compare(*neighbours[i]).same for i in evenly(len(neighbours), _SAMPLED)]
    if sum(sampled) >= _AGREE * len(sampled):
        return found
    return Arrangement("stack", alone, f"{files}; neighbouring images show different scenes")


def _arrange_order(frames: Sequence[Frame], look: _Look) -> Arrangement:
    """Arrange images whose names say nothing: do images that follow one another show one scene?"""
    folders = _grouped(frames, lambda frame: frame.file.parent)
    found = [_runs(_windowed(group), look) for group in folders]
    runs = [run for group_runs, _ in found for run in group_runs]
    if sum(map(len, runs)) >= _GROUPED * min(len(frames), _LONGEST):
        compared = [one for _, several in found for one in several]
        return _of_runs(runs, compared, "images that follow one another", look)
    reason = "each shows another scene" if len(frames) > 1 else "no other image shows its scene"
    return Arrangement("singles", tuple((frame,) for frame in frames), reason)


def _arrange_sequences(groups: Sequence[Group], words: str, look: _Look) -> Arrangement:
    """Arrange sequences of images of one scene each, which may move."""
    looked = [_windowed(group) for group in groups]
    found = [_runs(group, look) for group in looked]
    runs = [run for group_runs, _ in found for run in group_runs]
    compared = [one for _, several in found for one in several]
    shifts = [one.shift for one in compared if not one.still]
    if sum(map(len, runs)) >= _IN_RUNS * sum(map(len, looked)):
        return _of_runs(runs, compared, words, look)
    usual = f" (by about {np.median(shifts):.1f} pixels)" if any(shifts) else ""
    why = f"the scene moves from one image to the next{usual}"
    if min(look.image(groups[0][0]).shape[1:]) < LEAST_SIDE:
        why = f"images with a side below {LEAST_SIDE} pixels cannot be compared"
    alone = tuple((frame,) for group in looked for frame in group)
    return Arrangement("movie", alone, f"{words}; {why}, so each image counts alone")


def _of_runs(
    runs: Sequence[Group], compared: Sequence[Comparison], words: str, look: _Look
) -> Arrangement:
    """Arrange runs in which neighbours show one scene: does it stand still from the first to the last?"""
    scenes = f"{len(runs)} scenes, each of which" if len(runs) > 1 else "one scene, which"
    mostly = "" if all(one.still for one in compared) else "mostly "
    still = f"{words}: {scenes} {mostly}stands still"
    long = [run for run in runs if len(run) > 2]
    if not long:
        return Arrangement("pairs", tuple(runs), f"{still} in two images")
    drifts = [look.drift(long[i]) for i in evenly(len(long), _SAMPLED)]
    growth, changed = np.median([(drift.growth, drift.changed) for drift in drifts], axis=0)
    moved = np.median([one.moved for one in compared])
    measured = f"the first and the last image differ {growth:.2f} times as much as neighbours"
    if sum(drift.still for drift in drifts) < _AGREE * len(drifts):
        change = f", {changed:.0%} of the picture more than twice as much" if changed else ""
        why = f"but moves or changes slowly: {measured}{change}"
    elif moved > _MOVING:
        why = f"but {moved:.0%} of the picture moves"
    else:
        return Arrangement("bursts", tuple(runs), f"{still} ({measured})")
    reason = f"{still} from one image to the next, {why}. So only neighbours are compared"
    return Arrangement("movie", tuple(runs), reason)


def _windowed(frames: Sequence[Frame]) -> Group:
    """All frames, or of a long sequence several windows of frames that follow one another."""
    if len(frames) <= _LONGEST:
        return tuple(frames)
    length = _LONGEST // _WINDOWS
    starts = evenly(len(frames) - length + 1, _WINDOWS)
    return tuple(frames[start + i] for start in starts for i in range(length))


def _runs(frames: Sequence[Frame], look: _Look) -> tuple[list[Group], list[Comparison]]:
    """Cut a sequence where the scene does not stand still: the runs of two or more, and how neighbours that
    show one scene compare."""
    runs: list[list[Frame]] = [[frames[0]]]
    same: list[Comparison] = []
    for first, second in itertools.pairwise(frames):
        compared = look.compare(first, second)
        if compared.same:
            same.append(compared)
        if compared.still:
            runs[-1].append(second)
        else:
            runs.append([second])
    return [tuple(run) for run in runs if len(run) > 1], same

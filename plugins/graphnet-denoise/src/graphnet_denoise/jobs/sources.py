"""Sources: the images that arguments name: files, folders, and patterns such as photos/*.tif."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from graphnet.errors import DataError
from graphnet_denoise.images import DENOISED, Names, earlier_results, find_images, nothing_in

STDIN = Path("-")
"""The argument that stands for the standard input, and as a result for the standard output."""


@dataclass(frozen=True, slots=True)
class Source:
    """One image: its file, and its place in the folder that was given.

    `folder` is that folder; None for an image that was given itself, whose place is its name.
    """

    path: Path
    place: Path
    folder: Path | None = None


@dataclass(slots=True)
class Found:
    """The images, notes on what was left out, and folders that could not be read, each with the reason."""

    sources: list[Source] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def find_sources(
    inputs: Sequence[Path], names: Names, *, recursive: bool = False, output: Path | None = None
) -> Found:
    """Find the images that these arguments name, in their order; in a folder, in the order of their names.

    An earlier result (photo-denoised.png) is left out if its image (photo.png, photo.jpg) is in the list. If
    there is an `output`, this does not hold for a file that is named itself: nothing else is to be written
    there.

    Args:
        inputs: files, folders and patterns. A path that exists is never a pattern. `-` is the standard input.
        names: which names are those of images.
        recursive: whether folders inside folders are searched too.
        output: the folder of the results, which is not searched.

    Raises:
        DataError: a file or folder does not exist, or a folder or pattern has no images.
    """
    expanded = []
    named = set()
    outside = None if output is None else _real(output)
    for given in inputs:
        paths = [p for p in _expanded(given, names) if p == given or _real(p) != outside]
        expanded += paths
        named |= {os.path.abspath(path) for path in paths if path == given}
    missing = [str(path) for path in expanded if path != STDIN and not os.path.lexists(path)]
    if missing:
        raise DataError(f"there is no such file or folder: {', '.join(missing)}. Check the names.")
    found = Found()
    for path in expanded:
        if path.is_dir() and not names.is_image(path.name, folder=True):
            _search(path, names, found, recursive=recursive, outside=output)
        else:
            found.sources.append(Source(path, Path(path.name)))
    found.sources = list({os.path.abspath(one.path): one for one in found.sources}.values())
    _leave_out_results(found, names, kept=set() if output is None else named)
    return found


def _expanded(given: Path, names: Names) -> list[Path]:
    """The images that match a pattern, or the folders if no image does; else the path as it is."""
    if os.path.lexists(given) or not glob.has_magic(str(given)):
        return [given]
    matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
    found = [path for path in matches if names.is_image(path.name)]
    found = found or [path for path in matches if path.is_dir()]
    if not found:
        others = f" ({len(matches)} other files do)" if matches else ""
        raise DataError(
            f"{given}: no image has such a name{others}. Check the pattern and the folder."
        )
    return found


def _search(
    folder: Path, names: Names, found: Found, *, recursive: bool, outside: Path | None
) -> None:
    """Add the images in a folder to what was found."""
    listing = find_images(folder, names, recursive=recursive, outside=outside)
    if not listing.images and not listing.unreadable:
        or_else = ", or add --recursive"
        raise nothing_in(folder, listing, names, recursive=recursive, or_else=or_else)
    found.sources += [Source(path, path.relative_to(folder), folder) for path in listing.images]
    found.notes += [f"{link}: {words}" for link, words in listing.links]
    found.unreadable += listing.unreadable


def _leave_out_results(found: Found, names: Names, *, kept: Set[str]) -> None:
    """Leave out the results of earlier runs, whose images are in the list too; but not these paths."""
    results = earlier_results([one.path for one in found.sources], names)
    sources = [
        one for one in found.sources if one.path not in results or os.path.abspath(one.path) in kept
    ]
    if left_out := len(found.sources) - len(sources):
        said = "1 earlier result" if left_out == 1 else f"{left_out} earlier results"
        found.notes.append(f"left out {said} (*{DENOISED}.*)")
    found.sources = sources


def _real(path: Path) -> str:
    return os.path.realpath(path)

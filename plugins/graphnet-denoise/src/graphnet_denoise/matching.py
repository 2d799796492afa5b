"""Find which noisy image belongs to which clean one, by the usual names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphnet.errors import DataError
from graphnet_denoise.images import find_images, list_images
from graphnet_denoise.wording import some

NOISY = ("noisy", "noise", "input", "inputs", "lq", "lr", "low", "a", "raw", "degraded", "noisy1")
CLEAN = (
    *("clean", "gt", "groundtruth", "ground_truth", "target", "targets", "hq", "hr", "high", "b"),
    *("reference", "average", "mean", "noisy2"),
)
"""The names of folders, and the words in names of files, that say what is noisy and what is clean."""

_WORDS = frozenset((*NOISY, *CLEAN, "real", "denoised"))


@dataclass(frozen=True, slots=True)
class FilePair:
    """Two image files of one scene: what is measured, and what it is compared with."""

    name: str
    image: Path
    clean: Path


def pairs_in(folder: Path) -> list[FilePair] | None:
    """The pairs in a folder; None if neither its folders nor its files have the usual names.

    The pairs are in two folders, such as noisy and clean, lq and gt, A and B, or side by side, such as
    x_noisy.png and x_clean.png.

    Raises DataError if the folders have such names, and an image of one has no partner in the other.
    """
    if not folder.is_dir():
        return None
    found = find_images(folder).complete()
    halves = _halves(found.folders)
    if halves is not None:
        return match_folders(*halves)
    return _side_by_side(found.images)


def match_folders(images: Path, clean: Path) -> list[FilePair]:
    """Match the images of two folders by their names; endings and words such as "noisy" do not count.

    Raises DataError for a folder without images, and for images without a partner, which it names.
    """
    first, second = (_by_key(list_images(folder), folder) for folder in (images, clean))
    alone = [
        str(path)
        for one, other in ((first, second), (second, first))
        for key, path in one.items()
        if key not in other
    ]
    if alone:
        raise DataError(
            f"{images} and {clean}: expected images of the same names in both, found {len(alone)} without a "
            f"partner: {some(alone)}. Add or remove them, or give them equal names."
        )
    return [FilePair(path.name, path, second[key]) for key, path in first.items()]


def _halves(folders: Sequence[Path]) -> tuple[Path, Path] | None:
    inside = {folder.name.lower(): folder for folder in folders}
    noisy = [inside[name] for name in NOISY if name in inside]
    clean = [inside[name] for name in CLEAN if name in inside]
    return (noisy[0], clean[0]) if noisy and clean else None


def _side_by_side(files: Sequence[Path]) -> list[FilePair] | None:
    """Pairs of files of one folder, whose names differ in a word."""
    noisy: dict[str, Path] = {}
    clean: dict[str, Path] = {}
    for file in files:
        words = _words(file)
        key = _key(file)
        if any(word in CLEAN for word in words):
            clean[key] = file
        elif any(word in (*NOISY, "real") for word in words):
            noisy[key] = file
    both = noisy.keys() & clean.keys()
    if not both or len(both) * 2 != len(files):
        return None
    return [FilePair(file.name, file, clean[key]) for key, file in noisy.items()]


def _by_key(files: Iterable[Path], folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        key = _key(file)
        if key in found:
            raise DataError(
                f"{folder}: {found[key].name} and {file.name} would both be the partner of one image. Remove "
                f"one of them."
            )
        found[key] = file
    return found


def _words(file: Path) -> list[str]:
    return [word for word in re.split(r"[ _.\-]+", file.stem.lower()) if word]


def _key(file: Path) -> str:
    """The name of a file without its ending and without the words that say what is clean."""
    words = _words(file)
    return "_".join(word for word in words if word not in _WORDS) or "_".join(words)

"""Find which noisy image belongs to which clean one, by the usual names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphnet.errors import DataError
from graphnet_denoise.images import suffixes

NOISY = ("noisy", "noise", "input", "inputs", "lq", "lr", "low", "a", "raw", "degraded", "noisy1")
CLEAN = (
    *("clean", "gt", "groundtruth", "ground_truth", "target", "targets", "hq", "hr", "high", "b"),
    *("reference", "average", "mean", "noisy2"),
)
"""The names of folders, and the words in names of files, that say what is noisy and what is clean."""

_MANY = 5  # so many names are shown in a message
_WORDS = frozenset((*NOISY, *CLEAN, "real", "denoised"))


@dataclass(frozen=True, slots=True)
class FilePair:
    """Two image files of one scene: what is measured, and what it is compared with."""

    name: str
    image: Path
    clean: Path


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, in the order of their names; DataError if it cannot be listed."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}). Give a folder.") from error
    endings = suffixes()
    return [
        entry
        for entry in entries
        if entry.name.lower().endswith(endings) and not entry.name.startswith(".")
    ]


def pairs_in(folder: Path) -> list[FilePair] | None:
    """The pairs in a folder; None if neither its folders nor its files have the usual names.

    The pairs are in two folders, such as noisy and clean, lq and gt, A and B, or side by side, such as
    x_noisy.png and x_clean.png.

    Raises DataError if the folders have such names, and an image of one has no partner in the other.
    """
    if not folder.is_dir():
        return None
    halves = _halves(folder)
    if halves is not None:
        return match_folders(*halves)
    return _side_by_side(images_in(folder))


def match_folders(images: Path, clean: Path) -> list[FilePair]:
    """Match the images of two folders by their names; endings and words such as "noisy" do not count.

    Raises DataError, which names them, for images without a partner.
    """
    first, second = _by_key(images_in(images), images), _by_key(images_in(clean), clean)
    alone = [
        str(path)
        for one, other in ((first, second), (second, first))
        for key, path in one.items()
        if key not in other
    ]
    if alone or not first:
        found = f"{len(alone)} without a partner: {', '.join(alone[:_MANY])}" if alone else "none"
        raise DataError(
            f"{images} and {clean}: expected images of the same names in both, found {found}. Add or remove "
            f"them, or give them equal names."
        )
    return [FilePair(path.name, path, second[key]) for key, path in first.items()]


def _halves(folder: Path) -> tuple[Path, Path] | None:
    inside = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
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

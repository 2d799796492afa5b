"""Sources: the images that arguments name: files, folders, and patterns such as photos/*.tif.

In a folder, the endings of names say which files are images. Hidden files do not count. A link to an image
counts as an image; a link to a folder inside a folder is not followed, so that no folder is visited twice.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from graphnet.errors import DataError

STDIN = Path("-")
"""The argument that stands for the standard input, and as a result for the standard output."""

DENOISED = "-denoised"
"""What is added to the name of an image for the name of its result."""


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


@dataclass(frozen=True, slots=True)
class Names:
    """The endings of image files.

    Args:
        endings: the endings, in lower case.
        folders: those of images that are folders, such as .zarr.
    """

    endings: tuple[str, ...]
    folders: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[str, str]:
        """Split a name into its stem and its ending, both as they are written.

        >>> Names((".tif", ".png")).split("cells.OME.tif"), Names((".tif",)).split("notes.txt")
        (('cells', '.OME.tif'), ('notes', '.txt'))
        """
        lower = name.lower()
        known = max((e for e in self.endings if lower.endswith(e)), key=len, default=None)
        length = len(Path(name).suffix if known is None else known)
        stem, ending = name[: len(name) - length], name[len(name) - length :]
        if known is not None and stem.lower().endswith(".ome") and len(stem) > len(".ome"):
            stem, ending = stem[:-4], stem[-4:] + ending
        return stem, ending

    @property
    def some(self) -> str:
        """Some endings, for messages."""
        usual = [ending for ending in (".png", ".jpg", ".tif") if ending in self.endings]
        return f"{', '.join(usual or self.endings[:3])} or others"

    def is_image(self, name: str) -> bool:
        """Whether the name of a file is that of an image."""
        return not name.startswith(".") and name.lower().endswith(self.endings)

    def is_folder_image(self, name: str) -> bool:
        """Whether the name is that of an image that is a folder."""
        return bool(self.folders) and name.lower().endswith(self.folders)


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
        if path.is_dir() and not names.is_folder_image(path.name):
            before = len(found.sources)
            for place in _images(path, Path(), names, recursive, outside, found):
                found.sources.append(Source(path / place, place, path))
            if len(found.sources) == before and not found.unreadable:
                raise DataError(_nothing(path, names, recursive))
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


def _images(
    folder: Path,
    place: Path,
    names: Names,
    recursive: bool,
    outside: str | None,
    found: Found,
) -> Iterator[Path]:
    """The images in a folder and, if wanted, in its folders, as places in the folder that was given."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        found.unreadable.append((folder, f"cannot be listed ({error.strerror})"))
        return
    folders = []
    for entry in listed:
        is_folder = entry.is_dir()
        if names.is_image(entry.name) and (not is_folder or names.is_folder_image(entry.name)):
            yield place / entry.name
        elif recursive and is_folder and not entry.name.startswith("."):
            if entry.is_symlink():
                found.notes.append(f"{entry.path}: is a link to a folder and is not followed")
            elif outside != _real(Path(entry.path)):
                folders.append(entry)
    for entry in folders:
        yield from _images(Path(entry.path), place / entry.name, names, recursive, outside, found)


def earlier_results(paths: Sequence[Path], names: Names) -> set[Path]:
    """Those of the files that are results of earlier runs, whose images are among the files too.

    >>> files = [Path("a.tif"), Path("a-denoised.tif"), Path("b-denoised.tif")]
    >>> [str(file) for file in earlier_results(files, Names((".tif",)))]
    ['a-denoised.tif']
    """
    stems = {path: names.split(path.name)[0] for path in paths}
    known = {(path.parent, stem) for path, stem in stems.items()}
    return {
        path
        for path, stem in stems.items()
        if stem.endswith(DENOISED) and (path.parent, stem.removesuffix(DENOISED)) in known
    }


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


def _nothing(folder: Path, names: Names, recursive: bool) -> str:
    inside = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    hint = ""
    if inside and not recursive:
        some = ", ".join(f"'{name}'" for name in inside[:5])
        hint = f" It holds folders ({some}): give one of them, or add --recursive."
    where = "in it or its folders" if recursive else "directly in it"
    return (
        f"{folder}: expected a folder with images, whose names end in {names.some}, found none "
        f"{where}.{hint}"
    )


def _real(path: Path) -> str:
    return os.path.realpath(path)

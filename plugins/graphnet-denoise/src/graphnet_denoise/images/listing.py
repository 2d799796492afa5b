"""Listing: the images in a folder, by their names.

Hidden files and folders do not count. A link to an image counts as an image; a link to a folder inside a
folder is not followed, so that no folder is visited twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from graphnet.errors import DataError
from graphnet_denoise.images.names import Names


@dataclass(frozen=True, slots=True)
class Listing:
    """The images and folders in a folder.

    Attributes:
        images: the images, in the order of their names; those of the folders in it follow, if they were
            searched too.
        folders: the folders directly in it that are no images.
        links: links to folders, which were not followed, each with these words.
        unreadable: folders that could not be listed, each with the reason.
    """

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[tuple[Path, str]] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    def complete(self) -> Listing:
        """Return this; raises DataError if a folder could not be listed."""
        for folder, reason in self.unreadable:
            raise DataError(f"{folder}: {reason}. Give a folder.")
        return self


def find_images(
    folder: Path,
    names: Names | None = None,
    *,
    recursive: bool = False,
    outside: Path | None = None,
) -> Listing:
    """Find the images in a folder.

    Args:
        folder: the folder.
        names: which names are those of images; None for those of all formats.
        recursive: whether folders inside the folder are searched too.
        outside: a folder that is not searched.
    """
    names = names or Names.known()
    found = Listing()
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        found.unreadable.append((folder, f"cannot be listed ({error.strerror})"))
        return found
    for entry in sorted(shown, key=lambda entry: entry.name):
        path, is_folder = folder / entry.name, entry.is_dir()
        if names.is_image(entry.name, folder=is_folder):
            found.images.append(path)
        elif is_folder:
            found.folders.append(path)
    for path in found.folders if recursive else ():
        if path.is_symlink():
            found.links.append((path, "is a link to a folder and is not followed"))
        elif outside is None or os.path.realpath(outside) != os.path.realpath(path):
            inner = find_images(path, names, recursive=True, outside=outside)
            found.images.extend(inner.images)
            found.links.extend(inner.links)
            found.unreadable.extend(inner.unreadable)
    return found


def list_images(folder: Path) -> list[Path]:
    """Return the images directly in `folder`, in the order of their names.

    Raises DataError if it has none, is no folder, or cannot be listed.
    """
    names = Names.known()
    found = find_images(folder, names).complete()
    if not found.images:
        raise nothing_in(folder, found, names)
    return found.images


def nothing_in(
    folder: Path, found: Listing, names: Names, *, recursive: bool = False, or_else: str = ""
) -> DataError:
    """The error of a folder without images, which names the folders in it if these were not searched.

    `or_else` says what can be done in place of giving one of them.
    """
    hint = ""
    if found.folders and not recursive:
        some = ", ".join(f"'{inner.name}'" for inner in found.folders[:5])
        hint = f" It holds folders ({some}): give one of them{or_else}."
    where = "in it or its folders" if recursive else "directly in it"
    return DataError(
        f"{folder}: expected a folder with images, whose names end in {names.some}, found none "
        f"{where}.{hint}"
    )

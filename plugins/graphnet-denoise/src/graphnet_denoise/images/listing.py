"""The images of a folder, by the endings of their names."""

from __future__ import annotations

from pathlib import Path

from graphnet.errors import DataError
from graphnet_denoise.images.families import BUILTIN
from graphnet_denoise.images.opening import suffixes

READ_SUFFIXES = tuple(suffix for known in BUILTIN for suffix in known.suffixes)
"""The endings of the formats of this distribution; `suffixes` has those of others too."""


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file that can be read; False for hidden files."""
    if path.name.startswith(".") or not path.suffix:
        return False
    ending = path.suffix.lower()
    return ending in READ_SUFFIXES or ending in suffixes()


def list_images(folder: Path) -> list[Path]:
    """Return the images directly in `folder`, in the order of their names.

    Raises DataError if it has none, is no folder, or cannot be listed.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}). Give a folder.") from error
    images = [entry for entry in entries if is_image(entry) and _fits(entry)]
    if not images:
        folders = [f"'{entry.name}'" for entry in entries if entry.is_dir()]
        inside = (
            f" It holds folders ({', '.join(folders[:5])}): give one of them." if folders else ""
        )
        raise DataError(
            f"{folder}: expected a folder with images ({', '.join(READ_SUFFIXES)}), "
            f"found none directly in it.{inside}"
        )
    return images


def _fits(path: Path) -> bool:
    """Whether a file is a file, and a zarr a folder."""
    folders = {suffix for known in BUILTIN if known.folder for suffix in known.suffixes}
    return path.is_dir() if path.suffix.lower() in folders else path.is_file()

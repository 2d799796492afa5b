"""Written: which format a result gets, by the names and the content of files."""

from __future__ import annotations

from pathlib import Path

from graphnet_denoise.images import Format, ImageFile, formats, open_image
from graphnet_denoise.jobs.targets import Job

_BY_PARTS = ("fits", "mrc", "npy", "tiff", "zarr")


def by_parts(result: Path, source: ImageFile) -> bool:
    """Whether a result is written part by part; otherwise it is in memory until it is encoded."""
    fitting = [one.name for one in _of(result.suffix)]
    if source.format in fitting:
        return source.by_parts
    return fitting[:1] != [] and fitting[0] in _BY_PARTS


def wrong_ending(job: Job, source: ImageFile) -> str:
    """A note for an image whose ending is not that of its format, if its result has the same ending."""
    ending = job.source.suffix.lower()
    named = _of(ending)
    if job.target.suffix.lower() != ending or not named:
        return ""
    if source.format in [one.name for one in named]:
        return ""
    return f"is {source.title}, but its name ends in {ending}, so the result is {named[0].title}"


def ending_for(path: Path) -> str:
    """The ending for the result of a file whose name does not say the format.

    Raises DataError if the file cannot be read.
    """
    with open_image(path) as source:
        name = source.format
    (own,) = (one for one in formats() if one.name == name)
    return ".tif" if own.read_only else own.suffixes[0]


def _of(ending: str) -> list[Format]:
    return [one for one in formats() if ending.lower() in one.suffixes]

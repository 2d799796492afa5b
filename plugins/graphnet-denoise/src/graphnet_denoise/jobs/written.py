"""Written: which format a result gets, by the names and the content of files."""

from __future__ import annotations

from pathlib import Path

from graphnet_denoise.images import ImageFile, open_image, result_format
from graphnet_denoise.jobs.targets import Job

_COPIES = {"gif": 10, "jpeg2000": 10, "webp": 14}  # measured; of the others, 3 are enough


def copies_in_memory(result: Path, source: ImageFile) -> int:
    """How many times the bytes of a result an encoder takes; 0 if the result is written part by part.

    Raises DataError for a name that has the ending of no format.
    """
    found = result_format(result, source)
    return 0 if found.writes_parts(source) else _COPIES.get(found.name, 3)


def wrong_ending(job: Job, source: ImageFile) -> str:
    """A note for an image whose ending is not that of its format, if its result has the same ending."""
    ending = job.source.suffix.lower()
    if job.target.suffix.lower() != ending:
        return ""
    found = result_format(job.target, source)
    if found.name == source.format or ending not in found.suffixes:
        return ""
    return f"is {source.title}, but its name ends in {ending}, so the result is {found.title}"


def ending_for(path: Path) -> str:
    """The ending for the result of a file whose name does not say the format.

    Raises DataError if the file cannot be read.
    """
    with open_image(path) as source:
        return result_format(Path("result"), source).suffixes[0]

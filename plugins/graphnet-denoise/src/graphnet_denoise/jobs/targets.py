"""Targets: where the result of each image goes, and which images are left to do."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Self

from graphnet.errors import DataError, WriteError
from graphnet.system import sweep
from graphnet_denoise.images import DENOISED, Names
from graphnet_denoise.jobs.sources import STDIN, Source
from graphnet_denoise.wording import some


class Existing(Enum):
    """What happens if the file of a result exists already."""

    REFUSE = "refuse"
    SKIP = "skip"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Job:
    """One image to denoise: the file to read and the file to write, as the user named them.

    `file` is read and `result` written in place of them; they differ for the standard input and output.
    `stream` is the standard output, if the result goes there when it is complete.
    """

    source: Path
    target: Path
    file: Path
    result: Path
    stream: BinaryIO | None = field(default=None, compare=False)

    @classmethod
    def of(cls, source: Path, target: Path) -> Self:
        """Make a job that reads and writes the files that it names."""
        return cls(source, target, source, target)

    def deliver(self) -> None:
        """Copy a complete result to its stream, if it has one; raises WriteError if that fails."""
        if self.stream is None:
            return
        try:
            with self.result.open("rb") as file:
                shutil.copyfileobj(file, self.stream)
            self.stream.flush()
        except OSError as error:
            with contextlib.suppress(OSError, io.UnsupportedOperation):
                # What the stream still holds would be written at the exit, and fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            raise WriteError(
                f"{self.target}: the result cannot be written to the standard output ({error.strerror})."
            ) from error


def plan_jobs(
    sources: Sequence[Source],
    output: Path | None,
    names: Names,
    *,
    ending_of: Callable[[Path], str] = lambda _path: "",
) -> list[Job]:
    """Decide on the file of each result.

    Without `output`, the result of photo.tif is photo-denoised.tif beside it. An `output` with the ending of
    an image is the file of the one result. Another one is a folder, in which the results have the names of
    their images and their places in the folder that was given. An image whose name does not say its format
    is opened, and the ending of its format is added.

    Args:
        sources: the images.
        output: a file, a folder, or `-` for the standard output.
        names: which names are those of images.
        ending_of: finds the ending for the result of a file without the ending of an image.

    Raises:
        DataError: `output` does not fit the images, two results would have the same name, or a result would
            replace an input.
    """

    def name(source: Source, added: str) -> str:
        whole = source.path.name
        if source.path != STDIN and not whole.lower().endswith(names.endings):
            return f"{whole}{added}{ending_of(source.path)}"
        stem, ending = names.split(whole)
        return f"{stem}{added}{names.results.get(ending.lower(), ending)}"

    if output is None:
        for source in sources:
            _check_beside(source)
        targets = [source.path.with_name(name(source, DENOISED)) for source in sources]
    elif output == STDIN or names.is_image(output.name, folder=output.is_dir()):
        if len(sources) != 1 or sources[0].folder is not None:
            folder = "denoised" if output == STDIN else names.split(str(output))[0]
            raise DataError(
                f"{output}: several images cannot become one file. Give a folder, such as -o {folder}."
            )
        targets = [output]
    else:
        _check_folder(sources, output, names)
        targets = [output / source.place.with_name(name(source, "")) for source in sources]
    jobs = [Job.of(source.path, target) for source, target in zip(sources, targets, strict=True)]
    _check_apart(jobs)
    return jobs


def split_done(jobs: Sequence[Job], existing: Existing) -> tuple[list[Job], list[Job]]:
    """Return the jobs to do, and those that are left out since their results exist.

    Raises DataError if results exist and are neither to be left out nor to be replaced.
    """
    done = [job for job in jobs if job.target != STDIN and os.path.lexists(job.target)]
    if existing is Existing.REPLACE or not done:
        return list(jobs), []
    if existing is Existing.SKIP:
        left_out = set(done)
        return [job for job in jobs if job not in left_out], done
    names = some([job.target for job in done])
    verb = "exists" if len(done) == 1 else "exist"
    raise DataError(
        f"{names} {verb} already. Add --resume to do only the images without a result, or "
        f"--overwrite to replace results."
    )


def make_folders(jobs: Sequence[Job]) -> None:
    """Make the folders of the results, and delete what killed jobs have left there.

    Raises DataError if a folder cannot be made.
    """
    for folder in dict.fromkeys(job.target.parent for job in jobs if job.target != STDIN):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
        except OSError as error:
            raise DataError(
                f"{folder}: the folder cannot be made ({error.strerror}). Give another place with -o."
            ) from error


def _check_beside(source: Source) -> None:
    if source.folder is not None:
        raise DataError(
            f"{source.folder}: say where the results of a folder go, such as -o {source.folder}{DENOISED}."
        )
    if source.path == STDIN:
        raise DataError("-: say where the result goes: -o FILE, or -o - for the standard output.")


def _check_folder(sources: Sequence[Source], output: Path, names: Names) -> None:
    alone = len(sources) == 1 and sources[0].folder is None
    if output.is_file() or (alone and output.suffix and not output.is_dir()):
        raise DataError(
            f"{output}: expected a folder, or a file that ends in {names.some}, found "
            f"{output.suffix or 'a file without an ending'!r}."
        )
    if any(source.path == STDIN for source in sources):
        raise DataError("-: the standard input has no name for a result in a folder: give -o FILE.")


def _check_apart(jobs: Sequence[Job]) -> None:
    """Raise DataError if a result is an input, or the result of two inputs."""
    origins = {os.path.realpath(job.source) for job in jobs if job.source != STDIN}
    first: dict[str, Path] = {}
    for job in jobs:
        if job.target == STDIN:
            continue
        place = os.path.realpath(job.target)
        if place in origins:
            raise DataError(
                f"{job.target}: is an input, and would be overwritten by the result of {job.source}. Give "
                f"another place with -o."
            )
        if place in first:
            raise DataError(
                f"{job.target}: would be the result of both {first[place]} and {job.source}. Denoise them "
                f"into two folders."
            )
        first[place] = job.source

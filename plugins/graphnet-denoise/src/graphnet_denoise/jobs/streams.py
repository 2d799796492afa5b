"""Streams: `-` as an image, the standard input, and as a result, the standard output."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from graphnet.errors import DataError
from graphnet_denoise.images import open_image
from graphnet_denoise.jobs.sources import STDIN
from graphnet_denoise.jobs.targets import Job


@contextlib.contextmanager
def streamed(
    jobs: Sequence[Job], stdin: BinaryIO, stdout: BinaryIO, endings: Mapping[str, str]
) -> Iterator[list[Job]]:
    """Give the `with` block jobs that read and write files in place of the standard input and output.

    The result is copied to the standard output when the block ends without an error.

    Args:
        jobs: the jobs; at most one writes to the standard output.
        stdin: the bytes of an image.
        stdout: where the bytes of the result go.
        endings: the name of a format -> the ending of its files.

    Raises:
        DataError: the standard input has no bytes, or is no image.
    """
    if not any(STDIN in (job.source, job.target) for job in jobs):
        yield list(jobs)
        return
    with tempfile.TemporaryDirectory(prefix="graphnet-") as folder:
        changed = []
        for job in jobs:
            if job.source == STDIN:
                job = replace(job, file=_saved(stdin, Path(folder, "input")))
            if job.target == STDIN:
                job = replace(job, result=Path(folder, f"result{_ending(job, endings)}"))
            changed.append(job)
        yield changed
        for job in changed:
            if job.target == STDIN and job.result.is_file():
                with job.result.open("rb") as file:
                    shutil.copyfileobj(file, stdout)
                stdout.flush()


def _saved(stdin: BinaryIO, path: Path) -> Path:
    with path.open("wb") as file:
        shutil.copyfileobj(stdin, file)
    if not path.stat().st_size:
        raise DataError("-: the standard input has no bytes, expected an image.")
    return path


def _ending(job: Job, endings: Mapping[str, str]) -> str:
    """The ending of the format of an image."""
    if job.source != STDIN:
        return "".join(job.source.suffixes[-1:])
    try:
        with open_image(job.file) as source:
            return endings[source.format]
    except DataError as error:
        raise DataError(str(error).replace(str(job.file), str(STDIN))) from error

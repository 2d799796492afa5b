"""Streams: `-` as an image, the standard input, and as a result, the standard output."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from graphnet.errors import DataError
from graphnet_denoise.jobs.sources import STDIN
from graphnet_denoise.jobs.targets import Job
from graphnet_denoise.jobs.written import ending_for


@contextlib.contextmanager
def streamed(jobs: Sequence[Job], stdin: BinaryIO, stdout: BinaryIO) -> Iterator[list[Job]]:
    """Give the `with` block jobs that read and write files in place of the standard input and output.

    Args:
        jobs: the jobs; at most one writes to the standard output.
        stdin: the bytes of an image.
        stdout: where the bytes of the result go, when it is complete.

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
                result = Path(folder, f"result{_ending(job)}")
                job = replace(job, result=result, stream=stdout)
            changed.append(job)
        yield changed


def _saved(stdin: BinaryIO, path: Path) -> Path:
    with path.open("wb") as file:
        shutil.copyfileobj(stdin, file)
    if not path.stat().st_size:
        raise DataError("-: the standard input has no bytes, expected an image.")
    return path


def _ending(job: Job) -> str:
    """The ending of the format of an image: a stream has no name that could ask for another one."""
    try:
        return ending_for(job.file)
    except DataError as error:
        if job.source != STDIN:
            return job.source.suffix  # it is read once more, and that error is reported
        raise DataError(str(error).replace(str(job.file), str(STDIN))) from error

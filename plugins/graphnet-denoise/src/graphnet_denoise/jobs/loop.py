"""Loop: all images of a job. One thread reads and measures an image, one denoises it, one writes it.

What is wrong with one image, a damaged file for example, is reported, and the next image follows.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from graphnet.errors import GraphnetError, WriteError
from graphnet_denoise.images import ImageSink, create_like
from graphnet_denoise.jobs.cutting import Block
from graphnet_denoise.jobs.engine import Engine
from graphnet_denoise.jobs.memory import Bound
from graphnet_denoise.jobs.methods import Method
from graphnet_denoise.jobs.opened import OpenedImage, Part
from graphnet_denoise.jobs.opening import open_job
from graphnet_denoise.jobs.overlap import Ahead, Behind
from graphnet_denoise.jobs.reports import Done, Failed, Measured, Report, Summary
from graphnet_denoise.jobs.targets import Job
from graphnet_denoise.wording import error_text

HISTORY = "denoised with graphnet-denoise"

# No space, read-only, quota, and a folder without permission: no other result can be written either.
_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True)
class _Broken:
    """An image that cannot be read, or not to its end."""

    job: Job
    image: OpenedImage | None
    error: str


class Loop:
    """Denoises the images of a job.

    Args:
        method: how they are denoised.
        report: is told what happens.
        bound: the memory that images may take.
    """

    def __init__(self, method: Method, report: Report, bound: Bound) -> None:
        self.method = method
        self.report = report
        self.bound = bound
        self.engine = Engine(method, self.note)
        self.failed = self.done = 0
        self.computed = 0  # images, also those whose results are not written yet
        self.full: WriteError | None = None
        self.unfinished: set[_Result] = set()
        self._begun: dict[Job, float] = {}

    def run(self, jobs: Sequence[Job], *, skipped: int = 0) -> Summary:
        """Denoise all images, and return what became of them.

        Raises:
            WriteError: the disk is full, or a folder may not be written to, so that no other result can be
                written either.
        """
        started = perf_counter()
        with self.report.lock:
            self.report.start(len(jobs), skipped)
        try:
            with Behind() as writing, Ahead(self._read(jobs), _size_bytes) as reading:
                self._compute_all(reading, writing)
        finally:
            for result in tuple(self.unfinished):  # after an error or an interruption
                result.abort()
        if self.full is not None:
            raise self.full
        elapsed = perf_counter() - started
        summary = Summary(self.done, self.failed, skipped, elapsed, self.engine.seconds)
        with self.report.lock:
            self.report.end(summary)
        return summary

    def _compute_all(self, reading: Ahead[Part | _Broken], writing: Behind) -> None:
        result: _Result | None = None
        for item in reading:
            if self.full is not None:
                raise self.full
            image = item.image
            if result is not None and image is not result.image:  # it failed while it was written
                self._leave(result.finish, writing)
                result = None
            if result is None and image is not None and image.stopped:
                continue  # it has failed, and a part of it was read already
            if isinstance(item, _Broken):
                self._give_up(item, result, writing)
                result = None
                continue
            if result is None:
                result = _Result(self, item.image)
                result.create()  # what cannot be written need not be computed
            self._compute(item, result, writing)
            if result.image.stopped or result.parts == result.image.parts_count:
                self._leave(result.finish, writing)
                result = None
            del item, image
        if result is not None:
            self._leave(result.finish, writing)

    def _leave(self, end: Callable[[], None], writing: Behind) -> None:
        """Go on to the next image."""
        self.computed += 1
        writing.do(end)

    def _give_up(self, broken: _Broken, result: _Result | None, writing: Behind) -> None:
        if result is not None:
            self._leave(result.abort, writing)
        else:
            self.computed += 1
            if broken.image is not None:
                broken.image.close()
        self.fail(broken.job, broken.error)

    # -- reading, in its own thread

    def _read(self, jobs: Sequence[Job]) -> Iterator[Part | _Broken]:
        for job in jobs:
            image: OpenedImage | None = None
            try:
                self._begun[job] = perf_counter()
                image = open_job(job, self.method, self.bound)
                yield from image.parts(self.method.look)
            except Exception as error:  # a reader of damaged data may raise anything
                yield _Broken(job, image, _words(job, error))

    # -- computing, in the thread that called

    def _compute(self, part: Part, result: _Result, writing: Behind) -> None:
        image = part.image
        if image.stopped:
            return
        for note in image.notes:
            self.note(note, image.job)
        image.notes.clear()
        try:
            values, beyond = image.tensor(part.pixels)
            if result.plane != part.plane:
                result.plane = part.plane
                self._tell_noise(part)
            corner = part.block.rows.start, part.block.columns.start
            before = result.parts

            def advance(share: float) -> None:
                self._progress(image, before + share)

            restored = self.engine.restore(values, part.look, corner, advance).cpu()
            if beyond is not None:
                restored = restored + beyond
            rows, columns = part.block.inside
            kept = restored[..., rows, columns].clone()
            like = part.pixels[:, rows, columns].copy()
        except Exception as error:  # a model may raise anything; the other images go on
            result.stop(error)
            return
        result.parts += 1
        self._progress(image, result.parts)
        del values, restored, beyond

        def write() -> None:
            result.write(part.plane, part.block, kept, like)

        writing.do(write, kept.nbytes + like.nbytes)

    def _tell_noise(self, part: Part) -> None:
        look = part.look
        if look.noise is not None and look.kind is not None:
            found = Measured(part.image.job, part.plane, look.noise, look.kind, look.note)
            with self.report.lock:
                self.report.noise(found)

    def _progress(self, image: OpenedImage, parts: float) -> None:
        with self.report.lock:
            share = min(1.0, parts / image.parts_count)
            self.report.progress(self.computed + share, image.job)

    def note(self, text: str, job: Job | None = None) -> None:
        with self.report.lock:
            self.report.note(text, job)

    # -- the ends of images

    def fail(self, job: Job, error: str) -> None:
        with self.report.lock:
            self.failed += 1
            self.report.image(Failed(job, error))

    def succeed(self, job: Job, *, replaced: bool) -> None:
        with self.report.lock:
            self.done += 1
            self.report.image(Done(job, perf_counter() - self._begun.pop(job), replaced))


class _Result:
    """The result of an image; but for `create` and `stop`, its methods run in the thread that writes."""

    def __init__(self, loop: Loop, image: OpenedImage) -> None:
        self.loop = loop
        self.image = image
        self.plane = -1  # that the last part was of
        self.parts = 0
        self.error: str | None = None
        self.replaced = self.ends_job = False
        self._stack = contextlib.ExitStack()
        self._sink: ImageSink | None = None
        loop.unfinished.add(self)

    def create(self) -> None:
        """Begin the file, so that what the format or the folder cannot hold is known at once."""
        job, source = self.image.job, self.image.source
        self.replaced = os.path.lexists(job.result)
        try:
            with self.image.lock:
                sink = create_like(job.result, source, history=HISTORY)
                self._sink = self._stack.enter_context(sink)
        except Exception as error:  # an encoder may raise anything
            self._stop_writing(error)
            return
        levels = self._sink.levels
        if levels.integers and levels.bits < source.bits:
            ending = job.result.suffix
            text = f"has {source.bits} bits a channel, {ending} gets {levels.bits}"
            self.loop.note(text, job)

    def write(self, plane: int, block: Block, values: Tensor, like: NDArray[Any]) -> None:
        """Write the kept pixels of a block."""
        if self.error is not None:
            return
        assert self._sink is not None
        try:
            pixels = self.image.pixels(values, like)
            with self.image.lock_for_sink():
                self._sink.write(plane, block.kept_rows, block.kept_columns, pixels)
        except Exception as error:  # as in `create`; the other images go on
            self._stop_writing(error)

    def stop(self, error: BaseException) -> None:
        """Note what is wrong with the image, of which nothing more is read, computed or written."""
        self.error = _words(self.image.job, error)
        self.image.stopped = True

    def _stop_writing(self, error: BaseException) -> None:
        self.stop(error)
        cause = error.__cause__ if isinstance(error, WriteError) else error
        if isinstance(cause, OSError) and cause.errno in _DISK:
            self.ends_job = True
            self.loop.full = self.loop.full or WriteError(self.error)

    def finish(self) -> None:
        """Complete the file, or leave nothing of it if something failed."""
        if self.error is None:
            try:
                self._stack.close()
                self.image.job.deliver()
            except Exception as error:  # as in `create`
                self._stop_writing(error)
        self._close()
        if self.error is None:
            self.loop.succeed(self.image.job, replaced=self.replaced)
        elif not self.ends_job:  # else the error that ends the job says it
            self.loop.fail(self.image.job, self.error)

    def abort(self) -> None:
        """Leave nothing of the file."""
        self.error = self.error or "stopped"
        self._close()

    def _close(self) -> None:
        if self.error is not None and self._sink is not None:
            stopped = WriteError(self.error)
            with contextlib.suppress(GraphnetError, OSError):
                self._stack.__exit__(WriteError, stopped, None)
        self.image.close()
        self.loop.unfinished.discard(self)


def _size_bytes(item: Part | _Broken) -> int:
    return item.size_bytes if isinstance(item, Part) else 0


def _words(job: Job, error: BaseException) -> str:
    """What is wrong, with the name of the image that the user gave."""
    text = error_text(error, job.file, job.result, job.source, job.target)
    for path, name in ((job.file, job.source), (job.result, job.target)):
        text = text.replace(str(path), str(name))
    return text

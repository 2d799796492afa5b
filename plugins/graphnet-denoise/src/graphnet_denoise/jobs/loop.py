"""Loop: all images of a job. One thread reads and measures an image, one denoises it, one writes it.

What is wrong with one image, a damaged file for example, is reported, and the next image follows.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from graphnet.errors import GraphnetError, WriteError
from graphnet_denoise.images import ImageSink, create_like, open_image
from graphnet_denoise.jobs.cutting import Block, cut
from graphnet_denoise.jobs.engine import Engine
from graphnet_denoise.jobs.memory import Bound
from graphnet_denoise.jobs.methods import Method
from graphnet_denoise.jobs.opened import LOCK, OpenedImage, Part, ranges_of
from graphnet_denoise.jobs.overlap import Ahead, Behind
from graphnet_denoise.jobs.reports import Done, Failed, Report, Summary
from graphnet_denoise.jobs.targets import Job

HISTORY = "denoised with graphnet-denoise"

_OF_ONE_IMAGE = (GraphnetError, OSError, MemoryError)
_DISK = (28, 30, 122)  # no space, read-only, quota: no other result can be written either


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
        self.engine = Engine(method, report.note)
        self.failed = self.done = 0
        self.full: WriteError | None = None
        self.unfinished: set[_Result] = set()
        self._begun: dict[Job, float] = {}

    def run(self, jobs: Sequence[Job], *, skipped: int = 0) -> Summary:
        """Denoise all images, and return what became of them.

        Raises:
            WriteError: the disk is full, so that no other result can be written either.
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
            if result is not None and item.image is not result.image:
                writing.do(result.finish)
                result = None
            if isinstance(item, _Broken):
                if result is not None:
                    writing.do(result.abort)
                    result = None
                self.fail(item.job, item.error)
                continue
            if result is None:
                result = _Result(self, item.image)
            self._compute(item, result, writing)
            del item
        if result is not None:
            writing.do(result.finish)

    # -- reading, in its own thread

    def _read(self, jobs: Sequence[Job]) -> Iterator[Part | _Broken]:
        for job in jobs:
            image: OpenedImage | None = None
            try:
                image = self._open(job)
                yield from image.parts(self.method.look)
            except Exception as error:  # a reader of damaged data may raise anything
                yield _Broken(job, image, _words(job, error))

    def _open(self, job: Job) -> OpenedImage:
        self._begun[job] = perf_counter()
        if job.file.exists() and not (job.file.is_file() or job.file.is_dir()):
            raise OSError(f"{job.source}: is neither a file nor a folder.")
        with LOCK:
            source = open_image(job.file)
        try:
            together = source.colour in ("grey", "rgb") or (
                source.colour not in ("independent", "cmyk") and self.method.takes(source.channels)
            )
            blocks = self._blocks(job, source)
            numbers = self.method.takes_numbers
            ranges = ranges_of(source, together=together, takes_numbers=numbers)
        except BaseException:
            source.close()
            raise
        image = OpenedImage(job, source, together, ranges, blocks)
        image.notes.extend(dict.fromkeys(one.note for one in ranges if one.note))
        return image

    def _blocks(self, job: Job, source: Any) -> list[Block]:
        height, width = source.height, source.width
        whole = Block(*(slice(0, side) for side in (height, width, height, width)))
        if self.bound.fits_surely(height * width * source.channels):
            return [whole]
        reach = self.method.reach()
        if reach is None:
            return [whole]
        size = math.prod(source.shape) * source.dtype.itemsize
        try:
            most = self.bound.most_pixels(
                network_bytes=reach.pixel_bytes,
                channels=source.channels,
                itemsize=source.dtype.itemsize,
                whole_bytes=0 if source.by_parts else 3 * size,
            )
            return [whole] if most is None else cut(height, width, reach, most_pixels=most)
        except GraphnetError as error:
            raise type(error)(f"{job.source}: {error}") from error

    # -- computing, in the thread that called

    def _compute(self, part: Part, result: _Result, writing: Behind) -> None:
        image = part.image
        if image.stopped:
            return
        if image.notes:
            with self.report.lock:
                for note in image.notes:
                    self.report.note(note, image.job)
            image.notes.clear()
        try:
            values, beyond = image.tensor(part.pixels)
            if result.plane != part.plane:
                result.plane = part.plane
                if part.look.note:
                    with self.report.lock:
                        self.report.note(part.look.note, image.job)
            corner = part.block.rows.start, part.block.columns.start
            before = result.parts

            def advance(share: float) -> None:
                self._progress(image, before + share)

            restored = self.engine.restore(values, part.look, corner, advance).cpu()
            if beyond is not None:
                restored = restored + beyond
            result.parts += 1
            self._progress(image, result.parts)
        except _OF_ONE_IMAGE as error:
            image.stopped = True
            result.error = _words(image.job, error)
            return
        rows, columns = part.block.inside
        kept = restored[..., rows, columns].clone()
        like = part.pixels[:, rows, columns].copy()
        del values, restored, beyond

        def write() -> None:
            result.write(part.plane, part.block, kept, like)

        writing.do(write, kept.nbytes + like.nbytes)

    def _progress(self, image: OpenedImage, parts: float) -> None:
        with self.report.lock:
            whole = self.done + self.failed
            self.report.progress(image.job, whole + min(1.0, parts / image.parts_count))

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
    """The result of an image; its methods run in the thread that writes."""

    def __init__(self, loop: Loop, image: OpenedImage) -> None:
        self.loop = loop
        self.image = image
        self.plane = -1  # that the last part was of
        self.parts = 0
        self.error: str | None = None
        self.replaced = False
        self._stack = contextlib.ExitStack()
        self._sink: ImageSink | None = None
        loop.unfinished.add(self)

    def write(self, plane: int, block: Block, values: Tensor, like: NDArray[Any]) -> None:
        """Write the kept pixels of a block."""
        if self.error is not None:
            return
        try:
            pixels = self.image.pixels(values, like)
            with LOCK:
                if self._sink is None:
                    self._sink = self._create()
                self._sink.write(plane, block.kept_rows, block.kept_columns, pixels)
        except Exception as error:  # an encoder may raise anything; the other images go on
            self._stop(error)

    def _create(self) -> ImageSink:
        result = self.image.job.result
        self.replaced = os.path.lexists(result)
        source = self.image.source
        sink = self._stack.enter_context(create_like(result, source, history=HISTORY))
        if sink.levels.integers and sink.levels.bits < source.bits:
            with self.loop.report.lock:
                text = f"has {source.bits} bits a channel, {result.suffix} gets {sink.levels.bits}"
                self.loop.report.note(text, self.image.job)
        return sink

    def _stop(self, error: BaseException) -> None:
        self.image.stopped = True
        self.error = _words(self.image.job, error)
        cause = error.__cause__ if isinstance(error, WriteError) else error
        if isinstance(cause, OSError) and cause.errno in _DISK:
            self.loop.full = WriteError(self.error)

    def finish(self) -> None:
        """Complete the file, or leave nothing of it if something failed."""
        if self.error is None:
            try:
                with LOCK:
                    self._stack.close()
            except Exception as error:  # as in `write`
                self._stop(error)
        self._close()
        if self.error is None:
            self.loop.succeed(self.image.job, replaced=self.replaced)
        else:
            self.loop.fail(self.image.job, self.error)

    def abort(self) -> None:
        """Leave nothing of the file."""
        self.error = self.error or "stopped"
        self._close()

    def _close(self) -> None:
        if self.error is not None and self._sink is not None:
            stopped = WriteError(self.error)
            with contextlib.suppress(GraphnetError, OSError), LOCK:
                self._stack.__exit__(WriteError, stopped, None)
        with LOCK:
            self.image.source.close()
        self.loop.unfinished.discard(self)


def _size_bytes(item: Part | _Broken) -> int:
    return item.size_bytes if isinstance(item, Part) else 0


def _words(job: Job, error: BaseException) -> str:
    """What is wrong, with the name of the image that the user gave."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or job.source}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"{job.source}: out of memory. Allow less with --memory, or take a smaller image."
    text = str(error)
    if not isinstance(error, GraphnetError):
        text = (
            f"unexpected {type(error).__name__}: {text}. This is a fault in graphnet or a library"
        )
    if job.file != job.source:
        text = text.replace(str(job.file), str(job.source))
    if job.result != job.target:
        text = text.replace(str(job.result), str(job.target))
    return text if str(job.source) in text or str(job.target) in text else f"{job.source}: {text}"

"""Processes: the images of a job divided among several processes, which report to this one.

The largest files are handed out first, each to the process with the fewest bytes so far. Each process has a
share of the processor's cores. If a process ends early, its images are reported as failed, and the others go
on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch

from graphnet.errors import GraphnetError
from graphnet_denoise.jobs.loop import Loop
from graphnet_denoise.jobs.memory import Bound
from graphnet_denoise.jobs.methods import Method
from graphnet_denoise.jobs.reports import Done, Failed, Measured, Report, Summary
from graphnet_denoise.jobs.targets import Job

_EVERY_S = 0.1  # so often a process tells its progress
_RAISED = "raised"


class ProcessFailed(GraphnetError):
    """A process could not do its images; the message says why."""


def run_in_processes(
    count: int,
    make: Callable[[], tuple[Method, Bound]],
    report: Report,
    jobs: Sequence[Job],
    *,
    skipped: int = 0,
) -> Summary:
    """Denoise images in several processes, and return what became of them.

    Args:
        count: the number of processes.
        make: called in each process: the method, and the memory that its images may take.
        report: is told what happens in all of them.
        jobs: the images.
        skipped: the number of images that have a result already.

    Raises:
        ProcessFailed: a process cannot write its results, or has no method.
    """
    started = perf_counter()
    with report.lock:
        report.start(len(jobs), skipped)
    shares = divide(jobs, count)
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    workers: dict[Connection, _Worker] = {}
    with _environment({"OMP_NUM_THREADS": str(threads)}), contextlib.ExitStack() as stack:
        for number, share in enumerate(shares):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(theirs, number, threads, make, share), daemon=True
            )
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(process.terminate)  # if it has ended, nothing happens
            workers[mine] = _Worker(process, share, report)
        waiting = set(workers)
        while waiting:
            for connection in wait([*waiting]):
                assert isinstance(connection, Connection)
                if not workers[connection].take(connection):
                    waiting.discard(connection)
            with report.lock:
                report.progress(sum(worker.images for worker in workers.values()))
    ends = [worker.summary for worker in workers.values()]
    done, failed = sum(one.done for one in ends), sum(one.failed for one in ends)
    network_s = sum(one.network_s for one in ends)
    summary = Summary(done, failed, skipped, perf_counter() - started, network_s)
    with report.lock:
        report.end(summary)
    return summary


def divide(jobs: Sequence[Job], count: int) -> list[list[Job]]:
    """Divide images among processes: the largest files first, each to the process with the fewest bytes."""

    def size_bytes(job: Job) -> int:
        try:
            return job.file.stat().st_size
        except OSError:  # it is reported when its turn comes
            return 0

    shares: list[list[Job]] = [[] for _ in range(count)]
    bytes_of = [0] * count
    for job in sorted(jobs, key=size_bytes, reverse=True):
        least = min(range(count), key=lambda number: (bytes_of[number], len(shares[number])))
        shares[least].append(job)
        bytes_of[least] += size_bytes(job)
    return shares


class _Worker:
    """What this process knows of another one."""

    def __init__(self, process: Any, jobs: Sequence[Job], report: Report) -> None:
        self.process = process
        self.report = report
        self.left = {job.source: job for job in jobs}
        self.images = 0.0
        self.done = self.failed = 0
        self.summary = Summary(0, 0, 0, 0.0, 0.0)
        self._ended = False

    def take(self, connection: Connection) -> bool:
        """Take an event; returns whether more follow. Raises ProcessFailed if the process has raised one."""
        try:
            name, *arguments = connection.recv()
        except EOFError:
            if not self._ended:
                self._give_up()
            return False
        if name == _RAISED:
            raise ProcessFailed(*arguments)
        with self.report.lock:
            self._tell(name, *arguments)
        return True

    def _tell(self, name: str, *arguments: Any) -> None:
        match name, arguments:
            case "progress", (images,):
                self.images = images
            case "image", (result,):
                self.left.pop(result.job.source, None)
                self.done += isinstance(result, Done)
                self.failed += isinstance(result, Failed)
                self.report.image(result)
            case "end", (summary,):
                self.summary, self._ended = summary, True
            case _:
                getattr(self.report, name)(*arguments)

    def _give_up(self) -> None:
        """Report the images of a process that has ended early."""
        self.process.join()
        code = self.process.exitcode
        how = f"signal {-code}" if code < 0 else f"status {code}"
        error = f"the process that denoised it has ended ({how}); perhaps memory ran out"
        with self.report.lock:
            for job in self.left.values():
                self.report.image(Failed(job, f"{job.source}: {error}"))
        self.summary = Summary(self.done, self.failed + len(self.left), 0, 0.0, 0.0)


class _Sender(Report):
    """Sends each event of this process to the process that has started it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._told_at = 0.0

    def start(self, jobs: int, skipped: int) -> None:
        pass

    def note(self, text: str, job: Job | None = None) -> None:
        self._connection.send(("note", text, job))

    def folder(self, path: Path, error: str) -> None:
        self._connection.send(("folder", path, error))

    def noise(self, found: Measured) -> None:
        self._connection.send(("noise", found))

    def progress(self, images: float, job: Job | None = None) -> None:
        now = monotonic()
        if now - self._told_at >= _EVERY_S:
            self._told_at = now
            self._connection.send(("progress", images))

    def image(self, result: Done | Failed) -> None:
        self._connection.send(("image", result))

    def end(self, summary: Summary) -> None:
        self._connection.send(("progress", float(summary.done + summary.failed)))
        self._connection.send(("end", summary))

    def close(self) -> None:
        pass


def _work(
    connection: Connection,
    number: int,
    threads: int,
    make: Callable[[], tuple[Method, Bound]],
    jobs: Sequence[Job],
) -> None:
    """Denoise images in a process of its own, which this one ends by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        method, bound = make()
        Loop(method, _Sender(connection), bound).run(jobs)
    except KeyboardInterrupt:
        pass  # the unfinished results are gone
    except GraphnetError as error:
        connection.send((_RAISED, str(error)))
    except Exception as error:
        connection.send((_RAISED, f"unexpected {type(error).__name__}: {error}"))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started in the `with` block, unless the user has set them."""
    mine = {name: value for name, value in changes.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)

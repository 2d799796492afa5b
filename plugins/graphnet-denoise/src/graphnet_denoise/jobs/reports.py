"""Reports: what a job tells while it runs, as text with a progress bar, or as lines of JSON."""

from __future__ import annotations

import json
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from graphnet.cli import make_console
from graphnet_denoise.jobs.targets import Job
from graphnet_denoise.models import Kind
from graphnet_denoise.wording import images_text, not_done, some

if TYPE_CHECKING:
    from graphnet_denoise.noise.measure import FoundNoise

_NAMED = 3  # so many results, and the noise of so many images, are told one by one
_EVERY_S = 30.0  # a line of progress where there is no terminal
_EVERY_JSON_S = 1.0


@dataclass(frozen=True, slots=True)
class Done:
    """An image whose result was written."""

    job: Job
    elapsed_s: float
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that has no result, and why."""

    job: Job
    error: str


@dataclass(frozen=True, slots=True)
class Measured:
    """The noise of a plane of an image, the included model that removes it, and both in words."""

    job: Job
    plane: int
    noise: FoundNoise
    model: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a job: numbers of images, and seconds, of which some in the network."""

    done: int
    failed: int
    skipped: int
    elapsed_s: float
    network_s: float


class Report(ABC):
    """Receives what happens; several threads may call it, one at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    @abstractmethod
    def start(self, jobs: int, skipped: int) -> None:
        """So many images are to be done; so many have a result already."""

    @abstractmethod
    def note(self, text: str, job: Job | None = None) -> None:
        """A line about an image, or about the whole job."""

    @abstractmethod
    def folder(self, path: Path, error: str) -> None:
        """A folder, and so the images in it, was left out for this reason."""

    @abstractmethod
    def noise(self, found: Measured) -> None:
        """The noise of an image was measured."""

    @abstractmethod
    def progress(self, images: float, job: Job | None = None) -> None:
        """So many images are computed, the share of the present one included."""

    @abstractmethod
    def image(self, result: Done | Failed) -> None:
        """An image is finished."""

    @abstractmethod
    def end(self, summary: Summary) -> None:
        """All images are finished."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more follows, also after an error."""


class TextReport(Report):
    """Lines and a progress bar on stderr."""

    def __init__(self) -> None:
        super().__init__()
        console = make_console(stderr=True)
        self.live = console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self.total = 0
        self.begun = self.last = time.monotonic()
        self.said: set[str] = set()
        self.measured: list[Measured] = []
        self.results: list[Done] = []
        self.failed: list[Failed] = []
        self.left_out: list[Path] = []

    def start(self, jobs: int, skipped: int) -> None:
        self.total = jobs
        if skipped:
            self._print(f"{images_text(skipped)} skipped, since the results exist")
        self.task = self.bar.add_task("", total=jobs)
        self.begun = self.last = time.monotonic()
        self.bar.start()

    def note(self, text: str, job: Job | None = None) -> None:
        if text not in self.said:  # once, not for each image of a folder
            self.said.add(text)
            self._print(text if job is None else f"{job.source}: {text}")

    def folder(self, path: Path, error: str) -> None:
        self.left_out.append(path)
        self._print(f"error: {path}: {error}")

    def noise(self, found: Measured) -> None:
        self.measured.append(found)
        if self.total <= _NAMED and found.plane == 0:
            self._print(f"{found.job.source}: {found.text}")

    def progress(self, images: float, job: Job | None = None) -> None:
        # Only the bar; names of files do not belong into it, as they may hold anything.
        self.bar.update(
            self.task,
            completed=images,
            description=f"{min(int(images) + 1, self.total)}/{self.total}",
        )
        now = time.monotonic()
        if not self.live and now - self.last >= _EVERY_S and images:
            self.last = now
            left = (now - self.begun) * (self.total - images) / images
            share = images / self.total
            self._print(f"{share:.0%} of {images_text(self.total)}, {_duration(left)} left")

    def image(self, result: Done | Failed) -> None:
        if isinstance(result, Done):
            self.results.append(result)
        else:
            self.failed.append(result)
            self._print(f"error: {result.error}")

    def end(self, summary: Summary) -> None:
        self.close()
        many = self.total > _NAMED or any(one.plane for one in self.measured)
        if many and self.measured:
            self._print(in_short(self.measured))
        if len(self.results) <= _NAMED:
            for one in self.results:
                over = " in place of an older file" if one.replaced else ""
                self._print(f"wrote {one.job.target}{over}")
        else:
            folders = sorted({str(one.job.target.parent) for one in self.results})
            count = sum(one.replaced for one in self.results)
            replaced = f", {count:,} in place of older files" if count else ""
            self._print(
                f"wrote {images_text(len(self.results))} into {some(folders, 'more folders')}{replaced} in "
                f"{_duration(summary.elapsed_s)}"
            )
        if self.failed:
            failed = [one.job.source for one in self.failed]
            self._print(not_done(failed, self.total, "denoised"))
        if self.left_out:
            self._print(f"not searched: {some(self.left_out, 'more folders')}")

    def close(self) -> None:
        self.bar.stop()

    def _print(self, line: str) -> None:
        if self.live:
            self.bar.console.print(line, highlight=False)
        else:
            click.echo(line, err=True)


class JsonReport(Report):
    """One JSON object a line, for programs.

    Args:
        write: takes a line without its end.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self.write = write
        self.total = 0
        self.last = 0.0
        self.begun = time.monotonic()

    def _event(self, event: str, **fields: Any) -> None:
        # Names that are not UTF-8 have surrogates, which ASCII escapes keep.
        self.write(json.dumps({"event": event, **fields}))

    def start(self, jobs: int, skipped: int) -> None:
        self.total = jobs
        self.begun = time.monotonic()
        self._event("start", images=jobs, skipped=skipped)

    def note(self, text: str, job: Job | None = None) -> None:
        self._event("note", input=None if job is None else str(job.source), text=text)

    def folder(self, path: Path, error: str) -> None:
        self._event("folder", input=str(path), status="failed", error=error)

    def noise(self, found: Measured) -> None:
        numbers = _rounded(asdict(found.noise))
        where = {"input": str(found.job.source), "plane": found.plane}
        self._event("noise", **where, model=found.model, **numbers)

    def progress(self, images: float, job: Job | None = None) -> None:
        now = time.monotonic()
        if now - self.last < _EVERY_JSON_S or not images:
            return
        self.last = now
        left = (now - self.begun) * (self.total - images) / images
        source = None if job is None else str(job.source)
        fields = {"input": source, "done": round(images, 3), "images": self.total}
        self._event("progress", **fields, seconds_left=round(left, 1))

    def image(self, result: Done | Failed) -> None:
        names = {"input": str(result.job.source), "output": str(result.job.target)}
        if isinstance(result, Failed):
            self._event("image", **names, status="failed", error=result.error)
        else:
            seconds = round(result.elapsed_s, 3)
            self._event(
                "image", **names, status="done", replaced=result.replaced, elapsed_s=seconds
            )

    def end(self, summary: Summary) -> None:
        self._event("end", **_rounded(asdict(summary)))

    def close(self) -> None:
        pass  # each line is complete


def in_short(measured: Sequence[Measured]) -> str:
    """Say in one line what noise many images have."""
    levels = [one.noise.std for one in measured]
    low, high = f"{min(levels):.1f}", f"{max(levels):.1f}"
    deviation = f"{low} of 255"
    if low != high:
        deviation = f"{low} to {high} of 255 (median {statistics.median(levels):.1f})"
    kinds = Counter(one.model for one in measured).most_common()
    things = "planes" if any(one.plane for one in measured) else "images"
    (first, count), *others = kinds
    models = f"{first} for {count:,} {things}" if others else first
    models += "".join(f", {kind} for {count:,}" for kind, count in others)
    return f"noise: standard deviation {deviation}; model: {models}"


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in fields.items()}


def _duration(seconds: float) -> str:
    """Say a time as one or two numbers.

    >>> _duration(75), _duration(7300)
    ('1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"

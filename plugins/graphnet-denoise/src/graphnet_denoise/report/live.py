"""Live: what a page shows while it changes: a run that is training, or a folder of images."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import graphnet
from graphnet.errors import CheckpointError, DataError
from graphnet.plan import CompileOptions
from graphnet.training import RunFolder
from graphnet_denoise.images import list_images
from graphnet_denoise.models import MODELS
from graphnet_denoise.report.drawing import NO_MODEL, Drawn, draw, draw_network
from graphnet_denoise.report.examples import read_example
from graphnet_denoise.report.page import page_data, title_of
from graphnet_denoise.report.run import Run, read_run
from graphnet_denoise.restoring import Restorer, Settings
from graphnet_denoise.shipped import Shipped

_FOLDER_SIDE = 768  # of an image of a folder; of a larger one, the middle is shown
_REMEMBERED = 12  # so many images of a folder are not denoised again

NO_LOG = "The run has not begun its log yet."
BEING_MADE = "The images are being made."


class _Live:
    """A thread in which images are denoised, one after the other, and a number that counts changes."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="images")
        self._lock = threading.Lock()
        self._changes = 0
        self._seen: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _count(self, seen: object) -> int:
        """Count a change if this is not what was seen before, and return the number of changes."""
        with self._lock:
            self._changes += seen != self._seen
            self._seen = seen
            return self._changes


class LiveRun(_Live):
    """A training run, read again when its log or its model has changed.

    Args:
        path: the folder of the run.
        images: noisy images, or folders of them; without any, those of the run's validation.
        most: how many images are shown.
        options: how the model computes.
    """

    def __init__(
        self, path: Path, images: Sequence[Path], *, most: int, options: CompileOptions
    ) -> None:
        super().__init__()
        self.path, self.images, self.most, self.options = path, images, most, options
        self._drawn, self._number = Drawn(), 0
        self._wanted: object = None

    def version(self) -> int:
        """The number of changes. The images of a model that is new are made in the other thread."""
        log, model = self.path / RunFolder.LOG, Run(self.path).model
        stamps = _stamp(log), model and (model.name, _stamp(model))
        wanted = model and (stamps[1], _is_begun(log))  # the log says what the images are
        with self._lock:
            is_new, self._wanted = wanted != self._wanted, wanted
        if is_new and wanted:
            self._pool.submit(self._make, wanted)
        return self._count((stamps, self._number))

    def data(self) -> Mapping[str, Any]:
        """The run, and the images of its last model that are ready."""
        version = self.version()
        with self._lock:
            drawn, number = self._drawn, self._number
        run, remarks = Run(self.path), []
        if not _is_begun(self.path / RunFolder.LOG):
            remarks.append(NO_LOG)
        else:
            try:
                run = read_run(self.path)
            except CheckpointError as error:
                remarks.append(str(error))
        if run.model is None:
            remarks.append(NO_MODEL)
        elif number == 0:
            remarks.append(BEING_MADE)
        names = [one["name"] for one in drawn.pictures]
        return page_data(
            title_of(run),
            run=run,
            pictures=[_unmade(name, i, number) for i, name in enumerate(names)],
            network=drawn.network,
            training=drawn.training,
            remarks=[*remarks, *drawn.remarks],
            version=version,
        )

    def picture(self, number: int) -> Mapping[str, Any]:
        """One of the images of the last model. Raises DataError if there is no such image."""
        pictures = self._drawn.pictures
        if number >= len(pictures):
            raise DataError(f"there is no image {number}")
        return pictures[number]

    def _make(self, wanted: object) -> None:
        if wanted != self._wanted:  # a newer model waits
            return
        try:
            made = draw(read_run(self.path), self.images, most=self.most, options=self.options)
        except Exception as error:  # a reader of damaged data may raise anything
            made = Drawn(remarks=(f"The images cannot be shown: {error}",))
        with self._lock:
            self._drawn, self._number = made, self._number + 1


class LiveFolder(_Live):
    """A folder of images, each denoised when somebody looks at it.

    Args:
        path: the folder.
        model: the model; None for the included ones.
        options: how the model computes.

    Raises:
        DataError: the folder has no images.
    """

    def __init__(self, path: Path, model: Path | None, *, options: CompileOptions) -> None:
        super().__init__()
        self.path = path
        self._paths = list_images(path)
        settings = Settings(options)
        self._model = graphnet.load(model or MODELS["camera"])
        self._restorer = None if model is None else Restorer.of(self._model, settings)
        self._shipped = Shipped(settings=settings)
        self._made: dict[object, Mapping[str, Any]] = {}
        self._network = self._pool.submit(draw_network, self._model, options)

    def version(self) -> int:
        """The number of changes of the images in the folder."""
        try:
            self._paths = list_images(self.path)
        except DataError:
            self._paths = []
        stamps = [(path, _stamp(path)) for path in self._paths]
        return self._count((stamps, self._network.done()))

    def data(self) -> Mapping[str, Any]:
        """The names of the images; the images themselves are made when `picture` is called."""
        version, paths = self.version(), self._paths
        network, remarks = self._network.result() if self._network.done() else (None, [])
        if not paths:
            remarks = [*remarks, "The folder has no images now."]
        return page_data(
            str(self.path.resolve().name),
            pictures=[_unmade(path.name, i, _stamp(path)) for i, path in enumerate(paths)],
            network=network,
            remarks=remarks,
            version=version,
        )

    def picture(self, number: int) -> Mapping[str, Any]:
        """Denoise one of the images. Raises DataError if there is no such image."""
        paths = self._paths
        if number >= len(paths):
            raise DataError(f"there is no image {number}")
        return self._pool.submit(self._make, paths[number]).result()

    def _make(self, path: Path) -> Mapping[str, Any]:
        key = path, _stamp(path)
        if key not in self._made:
            while len(self._made) >= _REMEMBERED:
                del self._made[next(iter(self._made))]
            try:
                self._made[key] = self._denoise(path)
            except Exception as error:  # a reader of damaged data may raise anything
                return {"name": path.name, "error": f"The image cannot be shown: {error}"}
        return self._made[key]

    def _denoise(self, path: Path) -> Mapping[str, Any]:
        channels = self._model.input_channels
        example = read_example(path, side=_FOLDER_SIDE, channels=channels)
        if self._restorer is not None:
            return example.denoise(self._restorer).data()
        choice = self._shipped.choose(example.values()[0])
        return replace(example.denoise(choice.restorer), note=choice.describe()).data()


def _unmade(name: str, number: int, of: object) -> dict[str, str]:
    """An image whose numbers and pixels the page asks for; `of` changes when they do."""
    return {"name": name, "address": f"pictures/{number}?of={of}"}


def _stamp(path: Path) -> str:
    """Text that is another one after the file has changed; empty if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"


def _is_begun(log: Path) -> bool:
    try:
        return log.stat().st_size > 0
    except OSError:
        return False

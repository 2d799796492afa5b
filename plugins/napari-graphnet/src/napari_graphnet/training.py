"""The widget that trains a denoiser on image layers or a folder, and then denoises with it."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
from graphnet_denoise.learning.own_images import MINUTES, Learned, Learning
from graphnet_denoise.learning.training import Progress
from magicgui.widgets import (
    ComboBox,
    Container,
    FileEdit,
    FloatSpinBox,
    Label,
    ProgressBar,
    PushButton,
    Select,
)
from napari.layers import Image, Layer
from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import Qt

from napari_graphnet.denoising import denoised_layer
from napari_graphnet.layers import axes_of, pixels_of

FRAMES = {"found out from the images": "", "a movie": "T", "a stack of slices": "Z"}
"""What the images of a layer are, and the letter of their axis."""

Made = tuple[Learned, list[Any]]
"""What was learned, and what napari needs to add each denoised layer."""


@dataclass(frozen=True)
class Task:
    """What to learn from.

    Args:
        layers: image layers; empty if `folder` is given.
        folder: a folder of images, or None.
        letter: of the axis of frames, T or Z; empty if it is to be found out.
        minutes: how long all of it takes.
        run: the folder for the model.
    """

    layers: Sequence[Image]
    folder: Path | None
    letter: str
    minutes: float
    run: Path

    def begin(self) -> Learning:
        """Look at the images. Raises ValueError for layers that have different axes."""
        if self.folder is not None:
            return Learning(self.folder, minutes=self.minutes, run=self.run)
        axes = {axes_of(layer, self.letter) for layer in self.layers}
        if len(axes) > 1:
            raise ValueError(
                f"the layers have different axes ({' and '.join(sorted(axes))}). Choose layers of one kind."
            )
        arrays = [pixels_of(layer) for layer in self.layers]
        return Learning(arrays, axes.pop(), minutes=self.minutes, run=self.run)


class TrainWidget(Container[Any]):  # type: ignore[misc]
    """Trains in a thread of its own; says what it found, and how far it is; "Stop" keeps the best model.

    Args:
        napari_viewer: the viewer whose layers can be chosen; napari gives it.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        self.viewer = napari_viewer
        self.images = Select(label="image layers", choices=self._layers)
        self.folder = FileEdit(label="or a folder", mode="d", nullable=True, value=None)
        self.frames = ComboBox(label="frames of a layer are", choices=list(FRAMES))
        self.minutes = FloatSpinBox(
            label="minutes", value=MINUTES, min=0.1, max=2 * 24 * 60, step=1
        )
        self.place = FileEdit(label="models go to", mode="d", value=Path.home() / "graphnet")
        self.train = PushButton(text="Train")
        self.stop = PushButton(text="Stop and keep the best model", enabled=False)
        self.bar = ProgressBar(min=0, max=100, value=0, label="")
        self.told = _text("")
        self.found = _text("")
        super().__init__(
            widgets=[
                self.images, self.folder, self.frames, self.minutes, self.place, self.train, self.stop,
                self.bar, self.told, self.found,
            ]
        )  # fmt: skip
        self._asked_to_stop = threading.Event()
        self.worker: GeneratorWorker[list[str] | Progress | str, None, Made] | None = None
        self.train.changed.connect(self.begin)
        self.stop.changed.connect(self._asked_to_stop.set)

    def begin(self) -> None:
        """Train on what is chosen; says in `told` if nothing is."""
        layers = list(self.images.value)
        folder = self.folder.value
        if folder is None and not layers:
            self.told.value = "Choose one image layer or several, or a folder of images."
            return
        name = folder.name if folder is not None else layers[0].name
        task = Task(
            layers=[] if folder is not None else layers,
            folder=folder,
            letter=FRAMES[self.frames.value],
            minutes=self.minutes.value,
            run=unused(self.place.value, name),
        )
        self._asked_to_stop.clear()
        self.train.enabled, self.stop.enabled = False, True
        self.bar.value, self.found.value = 0, ""
        self.told.value = "looking at the images"
        self.worker = create_worker(
            self._work,
            task,
            _start_thread=False,
            _connect={
                "yielded": self._tell,
                "returned": self._show,
                "errored": self._fail,
                "finished": self._end,
            },
        )
        self.worker.start()

    def _layers(self, _: object) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def _should_stop(self) -> bool:
        """Whether the button was pressed, or napari is being closed."""
        worker = self.worker
        return self._asked_to_stop.is_set() or (worker is not None and worker.abort_requested)

    def _work(self, task: Task) -> Generator[list[str] | Progress | str, None, Made]:
        """What the thread does; what it yields is told in the window."""
        learning = task.begin()
        yield learning.lines()
        yield "measuring the speed of a step"
        learning.prepare(self._should_stop)
        trained = yield from learning.training(self._should_stop)
        yield "denoising with the best model"
        learned = learning.judge(trained)
        return learned, [denoised_layer(layer, model=learned.path) for layer in task.layers]

    def _tell(self, news: list[str] | Progress | str) -> None:
        match news:
            case list():
                self.found.value = "\n".join(news)
            case Progress():
                self.bar.value = 100 * news.step // news.steps
                self.told.value = str(news)
            case str():
                self.told.value = news

    def _show(self, made: Made) -> None:
        """Add the denoised layers, and offer the model in the widget that denoises."""
        learned, layers = made
        trained = learned.trained
        early = (
            f" Stopped after step {trained.steps}: {trained.stopped}." if trained.stopped else ""
        )
        self.told.value = f"The model is in {learned.path}.{early}"
        self.found.value = "\n".join([self.found.value, "", *learned.judged.lines()])
        self.bar.value = 100
        for data, settings, kind in layers:
            self.viewer.add_layer(Layer.create(data, settings, kind))
        _, widget = self.viewer.window.add_plugin_dock_widget("napari-graphnet", "Denoise")
        widget.model.value = learned.path

    def _fail(self, error: Exception) -> None:
        self.told.value = str(error)

    def _end(self) -> None:
        self.train.enabled, self.stop.enabled = True, False


def unused(place: Path, name: str) -> Path:
    """The path of a folder that does not exist yet, for a model that learned from what has this name.

    >>> unused(Path("models"), "my cells: 3").as_posix()
    'models/learn-my-cells-3'
    """
    plain = re.sub(r"\W+", "-", name).strip("-")[:60] or "images"
    number, path = 1, place / f"learn-{plain}"
    while path.exists():
        number += 1
        path = place / f"learn-{plain}-{number}"
    return path


def _text(words: str) -> Label:
    """Text of several lines, which can be selected."""
    label = Label(value=words)
    label.native.setWordWrap(True)
    label.native.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label

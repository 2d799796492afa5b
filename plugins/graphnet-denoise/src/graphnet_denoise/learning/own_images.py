"""Learn on one's own noisy images: in one call, or stage by stage for a program that shows what happens.

learned = learn("my-images", minutes=10)

learning = Learning("my-images", minutes=10)
print(*learning.lines(), sep="\n")          # what was found, and how the network will learn
learning.prepare()
for progress in learning.training():
    print(progress)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphnet.errors import CheckpointError, InputError
from graphnet.model import Model
from graphnet.sdk import Reporter, default_registry
from graphnet.system import write_text
from graphnet.training import RunFolder
from graphnet_denoise.learning.array_files import write_arrays
from graphnet_denoise.learning.findings import Findings, find
from graphnet_denoise.learning.judging import Judged, judge
from graphnet_denoise.learning.recipe import (
    MODEL,
    RECIPE,
    SCENES,
    Length,
    network_for,
    training_file,
    write_yaml,
)
from graphnet_denoise.learning.regions import MEMORY
from graphnet_denoise.learning.scene_images import read_scenes, write_scenes
from graphnet_denoise.learning.training import (
    Progress,
    Trained,
    plan_length,
    step_seconds,
    train,
    whole_length,
)
from graphnet_denoise.restoring import Restorer

QUALITY, ARRAYS = "quality.json", "arrays"
MINUTES = 10.0

_TRAINING = 0.95  # of the time; in the rest the model is judged


@dataclass(frozen=True)
class Learned:
    """What was learned.

    Attributes:
        model: the best model.
        path: its file.
        findings: what the images are, and how the network learned from them.
        trained: how the training went.
        judged: how good the model is, measured without a clean image.
    """

    model: Model
    path: Path
    findings: Findings
    trained: Trained
    judged: Judged


def learn(
    images: Any,
    axes: str | None = None,
    *,
    minutes: float = MINUTES,
    run: str | Path | None = None,
    memory: int | str = MEMORY,
    progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Learned:
    """Train a denoiser on noisy images; no clean image and no setting is needed.

    It finds out what the images are (pairs, bursts, movies, stacks or single images), measures their noise,
    and chooses how to learn from them, as `graphnet learn` does.

        learned = learn("my-images", minutes=10)
        clean = denoise(noisy, model=learned.model)

    Args:
        images: a folder of image files, one file, a numpy, dask or torch array, or a sequence of arrays.
        axes: one letter for each axis of the arrays, as for `denoise`: T for the frames of a movie, Z for the
            slices of a stack, I for images of which it is not known how they belong together.
        minutes: how long all of it takes.
        run: the folder for the model, the training file and the log, and for a copy of arrays; by default
            runs/learn-NAME, where arrays have the name "arrays".
        memory: how much the images may take, in bytes or as "2GiB"; of more, regions are drawn, and files
            that can be read in parts are read in parts.
        progress: called about every 2 s, and after each measurement of the held-out score.
        should_stop: asked between two steps; the best model so far is kept.

    Raises:
        DataError: there are no images, or no way leads from them to clean ones; the message says why.
        InputError: an array is of another type, or the axes do not fit.
        CheckpointError: `run` already holds a model, or cannot be written.
        TrainingError: it was stopped before its first step.
    """
    learning = Learning(images, axes, minutes=minutes, run=run, memory=memory)
    learning.prepare(should_stop)
    return learning.judge(learning.train(should_stop, progress=progress))


class Learning:
    """The stages of `learn`: what was found is known at once; then `prepare`, `train` and `judge`.

    Args:
        images, axes, minutes, run, memory: as for `learn`.
        steps: how many steps to train, in place of `minutes`.

    Attributes:
        findings: what the images are, and how the network will learn from them.

    Raises:
        DataError, InputError, CheckpointError: as `learn`.
    """

    def __init__(
        self,
        images: Any,
        axes: str | None = None,
        *,
        minutes: float = MINUTES,
        steps: int | None = None,
        run: str | Path | None = None,
        memory: int | str = MEMORY,
    ) -> None:
        if not isinstance(minutes, int | float) or not minutes > 0:
            raise InputError(f"minutes: expected a number above 0, found {minutes!r}.")
        self._started = time.monotonic()
        self._minutes, self._steps = minutes, steps
        if isinstance(images, str | Path):
            folder = Path(images)
            self._run = _run_folder(run, folder.resolve().stem)
        else:
            self._run = _run_folder(run, ARRAYS)
            _refuse_another(self._run)
            folder = self._run / ARRAYS
            write_arrays(folder, images if isinstance(images, list | tuple) else [images], axes)
        self.findings = find(folder, memory=memory)
        self._end = math.inf if steps else self._started + _TRAINING * 60 * minutes

    @property
    def elapsed_s(self) -> float:
        """The seconds since it began."""
        return time.monotonic() - self._started

    @property
    def folder(self) -> RunFolder:
        """The run's folder, after `prepare`."""
        return self._folder

    def lines(self) -> list[str]:
        """Say in five lines what was found and chosen."""
        return self.findings.lines(
            f"{self._minutes:g} minutes in all" if self._steps is None else f"{self._steps} steps"
        )

    def prepare(self, should_stop: Callable[[], bool] = lambda: False) -> Length:
        """Write the training file and what it names, and measure the speed of a step.

        Raises CheckpointError if the folder holds a model, TrainingError if `should_stop()`.
        """
        _refuse_another(self._run)
        self._folder = RunFolder(self._run, resume=False)
        findings, run = self.findings, self._run
        write_scenes(
            run / SCENES,
            findings.folder,
            findings.arrangement,
            limits=findings.choice.limits,
            noise=findings.choice.noise,
            memory=findings.memory,
        )
        comment = "The network that `graphnet learn` chose; it normalizes the images itself."
        write_yaml(run / MODEL, network_for(findings.choice), comment)
        held_out = bool(read_scenes(run / SCENES).held_out(findings.choice.size))
        if self._steps is None:
            self._write_recipe(Length(1, 1), held_out=held_out)
            speed = step_seconds(run / RECIPE, default_registry(), should_stop=should_stop)
            length = plan_length(self._end - time.monotonic(), speed)
        else:
            length = whole_length(self._steps)
        self._write_recipe(length, held_out=held_out)
        return length

    def train(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        reporters: Sequence[Reporter] = (),
        *,
        progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Trained:
        """Train to the end, as `training` does."""
        training = self.training(should_stop, reporters)
        while True:
            try:
                progress(next(training))
            except StopIteration as end:
                trained: Trained = end.value
                return trained

    def training(
        self, should_stop: Callable[[], bool] = lambda: False, reporters: Sequence[Reporter] = ()
    ) -> Generator[Progress, None, Trained]:
        """Train, and yield how far it is; the records of the training go to the log, and to `reporters`.

        The best model so far is kept if `should_stop()`, and if the generator is closed. Raises TrainingError
        if it was stopped before the first step.
        """
        registry = default_registry()
        log = registry.make("reporters", "log")
        return train(
            self._folder,
            registry,
            end=self._end,
            should_stop=should_stop,
            reporters=(log, *reporters),
        )

    def judge(self, trained: Trained) -> Learned:
        """Measure how good the model is, and write it into quality.json."""
        findings = self.findings
        restorer = Restorer.of(trained.model)
        judged = judge(restorer, findings.arrangement.noisy, hidden=findings.choice.hidden)
        write_text(self._run / QUALITY, json.dumps(judged.record(), indent=2) + "\n")
        self._folder.close()
        return Learned(trained.model, self._folder.model_path, findings, trained, judged)

    def _write_recipe(self, length: Length, *, held_out: bool) -> None:
        data = training_file(self.findings.choice, self._run, length, held_out=held_out)
        comment = "What `graphnet learn` trained; to train it again: graphnet train learn.yaml --run NEW\n"
        write_yaml(self._run / RECIPE, data, comment + "\n".join(self.lines()))


def _run_folder(run: str | Path | None, name: str) -> Path:
    return Path("runs") / f"learn-{name}" if run is None else Path(run)


def _refuse_another(run: Path) -> None:
    """Raise CheckpointError if a run's folder holds a model already."""
    if (run / RunFolder.MODEL).exists():
        raise CheckpointError(f"{run}: already holds a model. Choose another --run, or remove it.")

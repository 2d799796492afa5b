"""`graphnet learn`: train a denoiser on one's own noisy images."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path

import click

from graphnet.cli import make_console
from graphnet.errors import CheckpointError
from graphnet.sdk import default_registry
from graphnet.system import write_text
from graphnet.training import RunFolder
from graphnet_denoise.commands.tables import quality_lines
from graphnet_denoise.learn.findings import Findings, find
from graphnet_denoise.learn.judging import judge
from graphnet_denoise.learn.recipe import (
    MODEL,
    RECIPE,
    SCENES,
    Length,
    network_for,
    training_file,
    write_yaml,
)
from graphnet_denoise.learn.scenes import read_scenes, write_scenes
from graphnet_denoise.learn.training import (
    plan_length,
    step_seconds,
    stop_requested,
    train,
    whole_length,
)
from graphnet_denoise.restoring import Restorer

MODEL_FILE, QUALITY = "model.safetensors", "quality.json"

_MINUTES = 10.0
_TRAINING = 0.95  # of the time; in the rest the model is judged


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=_MINUTES,
    show_default=True,
    help="How long to train.",
)
@click.option(
    "--run",
    "run_folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Where the model and the training file go; by default runs/learn-NAME.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Train so many steps, in place of --minutes."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and train nothing.")
def learn(
    folder: Path, minutes: float, run_folder: Path | None, steps: int | None, dry_run: bool
) -> None:
    """Train a denoiser on the noisy images in FOLDER; no clean image and no training file is needed.

    The command finds out what the images are (pairs, bursts, movies, stacks or single images), measures
    their noise, and chooses how to learn from them. It says so in five lines before it trains. Some patches
    are held out: the model that predicts these best is kept. FOLDER may also be one file.

    The run's folder gets model.safetensors, for `graphnet denoise`; learn.yaml, which `graphnet train` can
    run again; log.jsonl; and quality.json, which says without a clean image how good the model is.
    Ctrl-C ends the training, and the best model so far is kept.
    """
    started = time.monotonic()
    console = make_console(stderr=True)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with console.status("looking at the images"):
        findings = find(folder)
    asked = f"{minutes:g} minutes in all" if steps is None else f"{steps} steps"
    for line in findings.lines(asked):
        say(line)
    if dry_run:
        return
    run = _open_run(run_folder or Path("runs") / f"learn-{folder.resolve().stem}")
    held_out = _prepare(run.path, findings, asked)
    registry = default_registry()
    end = math.inf
    if steps is None:
        end = started + _TRAINING * 60 * minutes
        with console.status("measuring the speed of a step"):
            speed = step_seconds(run.path / RECIPE, registry)
        length = plan_length(end - time.monotonic(), speed)
    else:
        length = whole_length(steps)
    _write_recipe(run.path, findings, length, asked, held_out=held_out)
    say(f"{length.steps} steps; log in {run.log_path}")
    reporters = [registry.make("reporters", name) for name in ("log", "progress")]
    with stop_requested() as interrupted:
        trained = train(
            run,
            registry,
            should_stop=lambda: interrupted() or time.monotonic() > end,
            reporters=reporters,
        )
    if trained.stopped:
        over = "the time is over" if time.monotonic() > end else trained.stopped
        say(f"stopped after step {trained.steps}: {over}")
    if trained.score is not None:
        say(f"the best held-out score is {trained.score:.2f} dB, of epoch {trained.epoch}")
    noisy = findings.arrangement.noisy
    judged = judge(Restorer.of(trained.model), noisy, hidden=findings.choice.hidden)
    write_text(run.path / QUALITY, json.dumps(judged.record(), indent=2) + "\n")
    for line in quality_lines(judged):
        say(line)
    say(f"the model is in {run.model_path}, after {time.monotonic() - started:.0f} s. Use it:")
    say(f"graphnet denoise {run.model_path} {folder} -o CLEAN")


def _open_run(path: Path) -> RunFolder:
    """Open the run's folder. Raises CheckpointError if it holds a model already."""
    if (path / MODEL_FILE).exists():
        raise CheckpointError(f"{path}: already holds a model. Choose another --run, or remove it.")
    return RunFolder(path, resume=False)


def _prepare(run: Path, findings: Findings, asked: str) -> bool:
    """Write the list of images, the network and a first training file; return whether a part is held out."""
    write_scenes(run / SCENES, findings.folder, findings.arrangement)
    choice = findings.choice
    comment = "The network that `graphnet learn` chose; it normalizes the images itself."
    write_yaml(run / MODEL, network_for(choice), comment)
    held_out = bool(read_scenes(run / SCENES).held_out(choice.size))
    _write_recipe(run, findings, Length(1, 1), asked, held_out=held_out)
    return held_out


def _write_recipe(
    run: Path, findings: Findings, length: Length, asked: str, *, held_out: bool
) -> None:
    data = training_file(findings.choice, run, length, held_out=held_out)
    comment = (
        "What `graphnet learn` trained; to train it again: graphnet train learn.yaml --run NEW\n"
    )
    write_yaml(run / RECIPE, data, comment + "\n".join(findings.lines(asked)))

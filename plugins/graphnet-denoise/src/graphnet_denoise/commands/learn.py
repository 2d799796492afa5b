"""`graphnet learn`: train a denoiser on one's own noisy images."""

from __future__ import annotations

import time
from pathlib import Path

import click

from graphnet.cli import make_console
from graphnet.sdk import default_registry
from graphnet.system import seconds_text
from graphnet.training import RunFolder
from graphnet_denoise.learn.findings import Findings, find
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
from graphnet_denoise.learn.training import plan_length, step_seconds, train, whole_length

_MINUTES = 10.0


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
    run again; and log.jsonl. Ctrl-C ends the training, and the best model so far is kept.
    """
    started = time.monotonic()
    console = make_console(stderr=True)
    with console.status("looking at the images"):
        findings = find(folder)
    for line in findings.lines(minutes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if dry_run:
        return
    run = RunFolder(run_folder or Path("runs") / f"learn-{folder.resolve().stem}", resume=False)
    held_out = _prepare(run.path, findings)
    registry = default_registry()
    deadline = started + 60 * minutes
    if steps is None:
        with console.status("measuring the speed of a step"):
            speed = step_seconds(run.path / RECIPE, registry)
        length = plan_length(deadline - time.monotonic(), speed)
    else:
        deadline, length = float("inf"), whole_length(steps)
    _write_recipe(run.path, findings, length, held_out=held_out)
    console.print(f"{length.steps} steps; log in {run.log_path}", markup=False, highlight=False)
    reporters = [registry.make("reporters", name) for name in ("log", "progress")]
    trained = train(run, registry, deadline=deadline, reporters=reporters)
    if trained.stopped:
        console.print(f"stopped after step {trained.steps}: {trained.stopped}", markup=False)
    if trained.score is not None:
        console.print(
            f"the best held-out score is {trained.score:.2f} dB against noisy pixels, of epoch "
            f"{trained.epoch}",
            markup=False,
        )
    console.print(
        f"the model is in {run.model_path}, after {seconds_text(time.monotonic() - started)}. Use it: "
        f"graphnet denoise {run.model_path} {folder} -o CLEAN",
        markup=False,
        highlight=False,
    )


def _prepare(run: Path, findings: Findings) -> bool:
    """Write the list of images, the network and a first training file; return whether a part is held out."""
    write_scenes(run / SCENES, findings.folder, findings.arrangement)
    choice = findings.choice
    comment = "The network that `graphnet learn` chose; it normalizes the images itself."
    write_yaml(run / MODEL, network_for(choice), comment)
    held_out = bool(read_scenes(run / SCENES).held_out(choice.size))
    _write_recipe(run, findings, Length(1, 1), held_out=held_out)
    return held_out


def _write_recipe(run: Path, findings: Findings, length: Length, *, held_out: bool) -> None:
    data = training_file(findings.choice, run, length, held_out=held_out)
    comment = (
        "What `graphnet learn` trained; to train it again: graphnet train learn.yaml --run NEW\n"
    )
    write_yaml(run / RECIPE, data, comment + "\n".join(findings.lines(0)[:-1]))

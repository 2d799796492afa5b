"""`graphnet learn`: train a denoiser on one's own noisy images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from graphnet.cli import make_console, stop_requested
from graphnet.sdk import default_registry
from graphnet_denoise.learning.own_images import MINUTES, Learning
from graphnet_denoise.learning.regions import MEMORY


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=MINUTES,
    show_default=True,
    help="How long the command takes in all.",
)
@click.option(
    "--run",
    "run_folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The folder for the model, the training file and the log; by default runs/learn-NAME.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Train this many steps, in place of --minutes."
)
@click.option(
    "--memory",
    metavar="SIZE",
    default=f"{MEMORY >> 30}GiB",
    show_default=True,
    help="How much memory the images may take. If they need more, the network learns from regions of them.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and train nothing.")
def learn(
    folder: Path,
    minutes: float,
    run_folder: Path | None,
    steps: int | None,
    memory: str,
    dry_run: bool,
) -> int:
    """Train a denoiser on the noisy images in FOLDER; no clean image and no training file is needed.

    The command finds out what the images are (pairs, bursts, movies, stacks or single images), measures
    their noise, and chooses how to learn from them. It says so in five lines before it trains. Some patches
    are held out: the model that predicts these best is kept. FOLDER may also be one file.

    The run's folder gets model.safetensors, for `graphnet denoise`; learn.yaml, which `graphnet train` can
    run again; log.jsonl; and quality.json, which says without a clean image how good the model is.
    Ctrl-C ends the training, and the best model so far is kept; the exit status is then 130.
    """
    console = make_console(stderr=True)
    say = partial(console.print, highlight=False)
    with console.status("looking at the images"):
        learning = Learning(folder, minutes=minutes, steps=steps, run=run_folder, memory=memory)
    for line in learning.lines():
        say(line)
    if dry_run:
        return 0
    with console.status("measuring the speed of a step"):
        length = learning.prepare()
    say(f"{length.steps} steps; log in {learning.folder.log_path}")
    bar = default_registry().make("reporters", "progress")
    with stop_requested() as stop:
        trained = learning.train(lambda: bool(stop), [bar])
    if trained.stopped:
        say(f"stopped after step {trained.steps}: {trained.stopped}")
    if trained.score is not None:
        say(f"the best held-out score is {trained.score:.2f} dB, of epoch {trained.epoch}")
    learned = learning.judge(trained)
    for line in learned.judged.lines():
        say(line)
    say(f"the model is in {learned.path}, after {learning.elapsed_s:.0f} s. Use it:")
    say(f"graphnet denoise {learned.path} {folder} -o CLEAN")
    return stop.status if stop else 0

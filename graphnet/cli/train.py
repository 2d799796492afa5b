"""graphnet train: run a training file, with a progress bar and a log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import click

from graphnet.cli import compile_options, flag, make_console, stop_requested
from graphnet.cli.signals import Stop
from graphnet.model import Model
from graphnet.sdk import default_registry
from graphnet.training import RunFolder, Saving, Stopped, Trainer, read_job


@click.command(short_help="Train a model as a YAML file says.")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set a field, e.g. data.train=photos.",
)
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    help="The folder of the run; by default runs/MODEL.",
)
@click.option("--resume", is_flag=True, help="Continue from the run's last checkpoint.")
@compile_options()
@click.option(
    "--executor",
    help="eager, auto, inductor, cudagraph, reference, or the name of another executor.",
)
@click.option("--epochs", type=int, help="The number of passes over the data set.")
def train(
    config: Path,
    settings: tuple[str, ...],
    folder: Path | None,
    resume: bool,
    options: Mapping[str, object],
    executor: str | None,
    epochs: int | None,
) -> int:
    """Train the model that CONFIG names, on the data that it names.

    An option replaces the field of CONFIG that has the same name.

    The command writes log.jsonl (a record for each group of steps and each epoch),
    checkpoint.safetensors (for --resume) and model.safetensors (the result) to the run's folder.
    Ctrl-C, SIGTERM and SIGHUP write a checkpoint and stop; the exit status is then 130, 143 or 129.
    """
    given = {**options, "executor": executor, "epochs": epochs}
    overrides = [
        f"{flag(name)}={_text(value)}" for name, value in given.items() if value is not None
    ]
    registry = default_registry()
    job = read_job(config, settings=[*settings, *overrides], registry=registry)
    path = folder or Path("runs") / _file_name(job.model)
    console = make_console(stderr=True)
    with RunFolder(path, resume=resume, keep=job.config.checkpoints.keep) as run:
        with console.status("reading the data and making the plan"):
            trainer = Trainer(
                job,
                resume=run.resume() if resume else None,
                folder=run,
                reporters=[registry.make("reporters", name) for name in ("log", "progress")],
            )
        for note in run.notes:
            console.print(f"warning: {note}")
        console.print(
            f"{job.model.description.name}: {len(trainer.pairs)} pairs, {trainer.steps_per_epoch} steps "
            f"an epoch, on {trainer.device} in {trainer.precision}; log in {run.log_path}"
        )
        with stop_requested() as stop:
            stopped = _train(trainer, run, stop)
        if stopped and not stopped.reason:
            console.print(f"stopped after step {stopped.step}; continue with --resume")
            return stop.status
        if stopped:
            console.print(f"stopped after step {stopped.step}: {stopped.reason}")
        run.finish(trainer.checkpoint())
        console.print(f"the model is in {run.model_path}")
    return 0


def _text(value: object) -> str:
    """Write an option's value as it would be in a training file."""
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)


def _file_name(model: Model) -> str:
    """Return the model's name without the characters that do not belong in the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", model.description.name).strip(".-") or "model"


def _train(trainer: Trainer, run: RunFolder, stop: Stop) -> Stopped | None:
    """Train and write checkpoints; return the record Stopped, if the training stops before its end."""
    with Saving(trainer, run) as saving:
        for record in trainer.run(lambda: bool(stop)):
            saving.record(record)
            if isinstance(record, Stopped):
                return record
    return None

"""graphnet train: run a training file, with a progress bar and a log."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import click

from graphnet.cli import compile_options, flag, make_console, stop_requested
from graphnet.cli.processes import (
    TIMEOUT_S,
    arguments_again,
    is_one_of_several,
    is_restarted,
    joined,
    start_processes,
)
from graphnet.cli.signals import Stop
from graphnet.model import Checkpoint, Joined, Model, read_checkpoint
from graphnet.sdk import default_registry
from graphnet.training import Job, RunFolder, Saving, Stopped, Trainer, checkpoints_in, read_job


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
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Train in so many processes on this machine; torchrun starts them on several.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1),
    default=TIMEOUT_S,
    show_default=True,
    help="The seconds after which a process that does not answer the others ends the training.",
)
@click.pass_context
def train(
    context: click.Context,
    config: Path,
    settings: tuple[str, ...],
    folder: Path | None,
    resume: bool,
    options: Mapping[str, object],
    executor: str | None,
    epochs: int | None,
    processes: int | None,
    timeout_s: float,
) -> int:
    """Train the model that CONFIG names, on the data that it names.

    An option replaces the field of CONFIG that has the same name.

    The command writes log.jsonl (a record for each group of steps and each epoch),
    checkpoint.safetensors (for --resume) and model.safetensors (the result) to the run's folder.
    Ctrl-C, SIGTERM and SIGHUP write a checkpoint and stop; the exit status is then 130, 143 or 129.
    """
    if processes is not None and is_one_of_several():
        raise click.UsageError("torchrun has started the processes already: leave --processes out.")
    if processes is not None and processes > 1:
        arguments = arguments_again(context, without="processes")
        return start_processes(processes, [str(context.info_name), *arguments])
    given = {**options, "executor": executor, "epochs": epochs}
    overrides = [
        f"{flag(name)}={_text(value)}" for name, value in given.items() if value is not None
    ]
    with joined(timeout_s) as together:
        registry = default_registry()
        job = read_job(config, settings=[*settings, *overrides], registry=registry)
        path = folder or Path("runs") / _file_name(job.model)
        resume = resume or (is_restarted() and bool(checkpoints_in(path)))
        return _run(job, path, together, resume=resume)


def _run(job: Job, path: Path, processes: Joined, *, resume: bool) -> int:
    """Run a job in a folder, and return the exit status; only the first process writes and prints."""
    console = make_console(stderr=True, quiet=processes.rank > 0)
    first = processes.rank == 0
    keep = job.config.checkpoints.keep
    with RunFolder(path, resume=resume, keep=keep) if first else nullcontext() as run:
        saved = _saved(run, path, processes) if resume else None
        with console.status("reading the data and making the plan"):
            trainer = Trainer(
                job,
                resume=saved,
                folder=run,
                reporters=[job.registry.make("reporters", name) for name in ("log", "progress")],
                processes=processes,
            )
        for note in run.notes if run else ():
            console.print(f"warning: {note}")
        several = f" in {processes.count} processes" if processes.count > 1 else ""
        console.print(
            f"{job.model.description.name}: {len(trainer.pairs)} pairs, {trainer.steps_per_epoch} steps "
            f"an epoch{several}, on {trainer.device} in {trainer.precision}; log in "
            f"{path / RunFolder.LOG}"
        )
        with stop_requested() as stop:
            stopped = _train(trainer, run, stop)
        if stopped and not stopped.reason:
            console.print(f"stopped after step {stopped.step}; continue with --resume")
            return stop.status if stop else 128 + signal.SIGTERM  # another process got the signal
        if stopped:
            console.print(f"stopped after step {stopped.step}: {stopped.reason}")
        if run is not None:
            run.finish(trainer.result())
            console.print(f"the model is in {run.model_path}")
    return 0


def _saved(run: RunFolder | None, path: Path, processes: Joined) -> Checkpoint:
    """The last checkpoint that is whole; the first process finds it, and all read it."""
    if run is not None:
        saved = run.resume()
        assert run.resumed is not None
        processes.texts(run.resumed.name)
        return saved
    name, *_ = processes.texts("")
    return read_checkpoint(path / name)


def _text(value: object) -> str:
    """Write an option's value as it would be in a training file."""
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)


def _file_name(model: Model) -> str:
    """Return the model's name without the characters that do not belong in the name of a folder."""
    return re.sub(r"[^\w.-]+", "-", model.description.name).strip(".-") or "model"


def _train(trainer: Trainer, run: RunFolder | None, stop: Stop) -> Stopped | None:
    """Train and write checkpoints; return the record Stopped, if the training stops before its end."""
    with Saving(trainer, run) as saving:
        if trainer.processes.count > 1:
            saving.save()  # from here on, there is a checkpoint whichever process fails
        for record in trainer.run(lambda: bool(stop)):
            saving.record(record)
            if isinstance(record, Stopped):
                return record
    return None

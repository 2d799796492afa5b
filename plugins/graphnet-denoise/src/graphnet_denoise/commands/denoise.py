"""`graphnet denoise`: denoise image files.

What takes long to import, torch above all, is imported after the first line is printed.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from graphnet.cli import compile_options, make_options
from graphnet.errors import DataError
from graphnet.system import parse_bytes, without_gc
from graphnet_denoise.commands.options import (
    MEMORY,
    OF_PREDICTION,
    SOME_FAILED,
    noise_level_option,
    self_ensemble_option,
    split_model,
)
from graphnet_denoise.models import Noise

if TYPE_CHECKING:
    from graphnet.plan import CompileOptions
    from graphnet_denoise.jobs import Bound, Job, Method, Report
    from graphnet_denoise.restoring import Settings


@click.command()
@click.argument(
    "files", metavar="[MODEL] INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="An image file if there is one INPUT, else a folder, which is made if it does not exist; - is the "
    "standard output. By default, the result of photo.jpg is photo-denoised.jpg in the same folder.",
)
@click.option("--recursive", is_flag=True, help="Also take the images in folders inside a folder.")
@click.option("--resume", is_flag=True, help="Skip images whose results exist.")
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON for each event, for programs."
)
@noise_level_option
@click.option(
    "--noise",
    type=click.Choice(get_args(Noise)),
    help="Without MODEL: which included model, for the noise of photographs (camera), or for noise that is "
    "independent from pixel to pixel (gaussian). auto measures the noise of each image, and says what it "
    "found.  [default: auto]",
)
@click.option(
    "--strength",
    type=click.FloatRange(min=0, max=1),
    default=1.0,
    help="How much of the noise is removed: 1, the default, removes all of it; 0 leaves an image as it is.",
)
@click.option(
    "--zero-shot",
    is_flag=True,
    help="Train the network of MODEL (.yaml) on each image itself; no other data is needed.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="With --zero-shot: how many steps to train.  [default: 2000]",
)
@self_ensemble_option
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    help="Divide the images among so many processes.  [default: 1]",
)
@compile_options(*OF_PREDICTION, device="auto", memory=MEMORY)
def denoise(
    files: tuple[Path, ...],
    output: Path | None,
    recursive: bool,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    noise_level: float | None,
    noise: Noise | None,
    strength: float,
    zero_shot: bool,
    steps: int | None,
    self_ensemble: bool,
    processes: int,
    options: Mapping[str, object],
) -> None:
    """Denoise images of any size with an included model, or with a trained MODEL (.safetensors).

    Without MODEL, the command measures the noise of each image, and takes the included model for it. With
    --zero-shot, MODEL is a network (.yaml), which is trained on each image itself.

    INPUT is an image, a folder of images, a pattern in quotes ('scans/*.tif'), or - for the standard input.
    A result has the ending of its image, or that of OUT, which decides its format. In a folder OUT, results
    keep the names of their images and, with --recursive, their folders. Nothing is replaced without
    --overwrite. A file that cannot be read is reported, the others are denoised, and the exit status is 1.

    In a folder, hidden files and earlier results (*-denoised.*) beside their images are left out; without -o,
    so are earlier results that are named beside their images. A link to an image counts as an image; a link
    to a folder is not followed.

    The process takes at most --memory (on a GPU: the images and the network); several --processes share it.
    An image that needs more is read, denoised and written in tiles, with the same result. 100% means no
    bound.
    """
    check_flags(resume=resume, overwrite=overwrite, zero_shot=zero_shot, steps=steps)
    model, inputs = split_model(files)
    if not inputs:
        raise DataError(
            f"there is no image to denoise with {model}. Give one, or a folder of images."
        )
    if model is not None and noise is not None:
        raise DataError(
            f"{model}: --noise chooses an included model. Leave out --noise or the model."
        )
    if as_json and output == Path("-"):
        raise DataError("--json and -o - both write to the standard output. Leave one of them out.")
    if as_json:
        name = None if model is None else str(model)
        click.echo(json.dumps({"event": "begin", "model": name, "inputs": len(inputs)}))
    else:
        click.echo(_first_line(model, inputs), err=True)

    with without_gc():  # while modules are imported, it visits the same objects again and again
        from graphnet_denoise import jobs
        from graphnet_denoise.images import Names
        from graphnet_denoise.restoring import Settings
        from graphnet_denoise.zeroshot import STEPS

        existing = jobs.Existing.REFUSE
        if resume or overwrite:
            existing = jobs.Existing.SKIP if resume else jobs.Existing.REPLACE
        names = Names.known()
        found = jobs.find_sources(inputs, names, recursive=recursive, output=output)
        planned = jobs.plan_jobs(found.sources, output, names, ending_of=_ending_of)
        report: Report = jobs.JsonReport(click.echo) if as_json else jobs.TextReport()
        for note in found.notes:
            report.note(note)
        for folder, reason in found.unreadable:
            report.folder(folder, reason)
        chosen = make_options(options)
        made = functools.partial(
            make_method,
            model,
            noise=noise or "auto",
            noise_level=noise_level,
            zero_shot=(steps or STEPS) if zero_shot else None,
            settings=Settings(chosen, self_ensemble, strength),
        )
        method = made()
        left, done = jobs.split_done(planned, existing)
        count = min(processes, len(left))  # the standard input and output are for one image
        jobs.make_folders(left)
    try:
        if count > 1:
            ready = functools.partial(_ready, made, chosen, count)
            summary = jobs.run_in_processes(count, ready, report, left, skipped=len(done))
            failed = summary.failed
        else:
            failed = _run(method, report, left, skipped=len(done), bound=bound_of(chosen))
    finally:
        report.close()
    if failed or found.unreadable:
        raise click.exceptions.Exit(SOME_FAILED)


def _run(method: Method, report: Report, left: Sequence[Job], *, skipped: int, bound: Bound) -> int:
    """Denoise the images, and return how many failed."""
    from graphnet_denoise import jobs

    with jobs.streamed(left, sys.stdin.buffer, sys.stdout.buffer) as streamed:
        return jobs.Loop(method, report, bound).run(streamed, skipped=skipped).failed


def _ending_of(path: Path) -> str:
    """The ending for the result of a file whose name does not say it; "" if the file cannot be read."""
    from graphnet_denoise.jobs import ending_for

    try:
        return ending_for(path)
    except DataError:
        return ""  # it is reported when its turn comes


def _ready(
    made: Callable[[], Method], options: CompileOptions, processes: int
) -> tuple[Method, Bound]:
    """What one of several processes needs."""
    return made(), bound_of(options, processes)


def bound_of(options: CompileOptions, processes: int = 1) -> Bound:
    """Say how much memory images may take: on a CPU, all of the process together keeps to --memory.

    Several processes have equal shares of it.
    """
    from graphnet_denoise.jobs import Bound

    memory = str(options.memory)
    # A share is one of what the network takes for a whole image; only the network's own tiles bound it.
    size = None if memory.endswith("%") else parse_bytes(memory, whole=0) // processes
    on_cpu = options.target.device.type == "cpu"
    return Bound.of_process(size) if on_cpu else Bound(size)


def _first_line(model: Path | None, inputs: Sequence[Path]) -> str:
    what = str(inputs[0]) if len(inputs) == 1 else f"{len(inputs):,} inputs"
    return f"denoising {what} with {model or 'an included model'}"


def check_flags(*, resume: bool, overwrite: bool, zero_shot: bool, steps: int | None) -> None:
    """Raise DataError for options that contradict one another."""
    if steps is not None and not zero_shot:
        raise DataError(
            "--steps says how long --zero-shot trains. Add --zero-shot, or leave --steps out."
        )
    if resume and overwrite:
        raise DataError(
            "--resume skips images whose results exist, and --overwrite replaces such results. "
            "Give one of them."
        )


def make_method(
    path: Path | None,
    *,
    noise: Noise,
    noise_level: float | None,
    zero_shot: int | None,
    settings: Settings,
) -> Method:
    """Load a model and say how it denoises; `zero_shot` is the number of steps, if it is trained first.

    Raises DataError if --zero-shot or --noise-level does not fit the model or the other options.
    """
    import graphnet
    from graphnet_denoise.jobs import ByImage, ByModel, ByNoise
    from graphnet_denoise.restoring import Restorer
    from graphnet_denoise.shipped import Shipped

    if path is None:
        if zero_shot is not None:
            raise DataError(
                "--zero-shot trains a network on each image: give the network (.yaml) before the images."
            )
        if noise_level is not None:
            raise DataError(
                "--noise-level is for a model that takes the noise level as an input. The included models do "
                "not need it. Leave it out, or give a model."
            )
        return ByNoise(Shipped(noise, settings))
    network = graphnet.load(path)
    if zero_shot is None:
        return ByModel(network, Restorer.of(network, settings), noise_level)
    if network.weights is not None or noise_level is not None:
        raise DataError(
            f"{path}: --zero-shot trains a network from its description (.yaml), without weights and "
            f"without a noise level. Leave out --zero-shot, or the weights and the level."
        )
    return ByImage(network, zero_shot, settings)

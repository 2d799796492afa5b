"""Options that several commands of this plugin have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import click

from graphnet_denoise.models import MODELS

SOME_FAILED = 1
"""The exit status of a command that left out an image, and went on with the others."""

OF_PREDICTION = ("device", "precision", "kernels", "memory")
"""The options of a compilation that these commands take."""

G = TypeVar("G", str, Path)

_MODELS = (".safetensors", ".yaml", ".yml", ".toml", ".onnx")

MEMORY = "2GiB"
"""The default bound on memory; an image that needs more is denoised in tiles. "100%" means no bound."""

self_ensemble_option = click.option(
    "--self-ensemble",
    is_flag=True,
    help="Take the mean over each image's 8 flips and turns: somewhat better, in 8 times the time.",
)

optional_model = click.argument(
    "model", metavar="[MODEL]", default=MODELS["camera"], type=click.Path(path_type=Path)
)
"""A model; by default the included model `camera`."""

name_option = click.option(
    "--name", metavar="TEXT", help="What the program shows.  [default: the name in MODEL]"
)

noise_level_option = click.option(
    "--noise-level",
    metavar="STD",
    type=click.FloatRange(min=0),
    help="The noise's standard deviation in 255ths of the range from black to white, for a model that takes "
    "it as an input.",
)

most_option = click.option(
    "--most",
    default=4,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many images of a run to show.",
)


def split_model(given: Sequence[G]) -> tuple[Path | None, Sequence[G]]:
    """Split arguments into the model, if the first one has the ending of a model, and the rest.

    >>> split_model(["a.ONNX", "b.png"]), split_model(["b.png"])
    ((PosixPath('a.ONNX'), ['b.png']), (None, ['b.png']))
    """
    first = Path(given[0])
    return (first, given[1:]) if first.suffix.lower() in _MODELS else (None, given)

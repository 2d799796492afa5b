"""Options that the commands of this plugin share."""

from __future__ import annotations

import click

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes CUDA when there is a GPU.",
)

kernels_option = click.option(
    "--kernels",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Which kernels compute the layers, such as reference or aten.",
)

self_ensemble_option = click.option(
    "--self-ensemble",
    is_flag=True,
    help="Take the mean over each image's 8 flips and turns: somewhat better, in 8 times the time.",
)

memory_option = click.option(
    "--memory",
    metavar="SIZE",
    default="2GiB",
    show_default=True,
    help="What an image may take; a larger one goes through in tiles, with the same result. 100%: no bound.",
)

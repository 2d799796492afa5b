"""Options that several commands of this plugin have."""

from __future__ import annotations

import click

OF_PREDICTION = ("device", "precision", "kernels", "memory")
"""The options of a compilation that these commands take."""

MEMORY = "2GiB"
"""The default bound on memory; an image that needs more is denoised in tiles. "100%" means no bound."""

self_ensemble_option = click.option(
    "--self-ensemble",
    is_flag=True,
    help="Take the mean over each image's 8 flips and turns: somewhat better, in 8 times the time.",
)

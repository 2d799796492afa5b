"""Options that the commands of this plugin share."""

from __future__ import annotations

import click

OF_PREDICTION = ("device", "precision", "kernels", "memory")
"""The options of a compilation that these commands take."""

MEMORY = "2GiB"
"""What an image may take, unless told otherwise; a larger one goes through in tiles. "100%": no bound."""

self_ensemble_option = click.option(
    "--self-ensemble",
    is_flag=True,
    help="Take the mean over each image's 8 flips and turns: somewhat better, in 8 times the time.",
)

"""The number of the contract between graphnet and its plugins, and what changed with each number.

The contract is what a plugin relies on: the public names, the hooks, and what graphnet calls on a class that
a plugin registers. A plugin may state the number it was written for, `GRAPHNET_CONTRACT = 2`; a graphnet
with another number does not load it, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping

CONTRACT = 2

CHANGES: Mapping[int, tuple[str, ...]] = {
    2: (
        "a metric is a class: derive it from graphnet.Metric, and define measure(prediction, target)",
        "predictions reach a metric as the model makes them: a metric of images clamps them to 0..1 itself",
        "a command is registered by the hook graphnet_commands; the entry-point group graphnet.commands "
        "is no longer read",
        "a kernel that replaces a convolution must not match a padding other than zeros: check "
        "layer.pads_zeros",
        "noises and supervisions of graphnet-denoise are registered by the hooks "
        "graphnet_denoise_noises and graphnet_denoise_supervisions",
    ),
}
"""Number -> what an author has to change in a plugin for the number before it."""


def changes_since(stated: int) -> tuple[str, ...]:
    """What an author has to change in a plugin that was written for a contract, oldest change first.

    >>> changes_since(1)[0]
    'a metric is a class: derive it from graphnet.Metric, and define measure(prediction, target)'
    >>> changes_since(CONTRACT)
    ()
    """
    return tuple(
        change for number in sorted(CHANGES) if number > stated for change in CHANGES[number]
    )

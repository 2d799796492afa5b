"""Embedding: a network as one layer of a larger model."""

from __future__ import annotations

from graphnet.description import BlockDescription, ModelDescription

NETWORK = "network"
"""The node whose parameters are the network's, in the larger model."""


def as_block(description: ModelDescription) -> tuple[str, dict[str, BlockDescription]]:
    """Make a block of a network: the name of the layer that it becomes, and the blocks of the larger model.

    >>> from graphnet.description import parse
    >>> network = parse({"layers": [{"relu": {}}]})
    >>> name, blocks = as_block(network)
    >>> name, blocks[name].layers == network.layers
    ('network', True)
    """
    taken = description.blocks
    name = next(n for n in (NETWORK + "_" * i for i in range(99)) if n not in taken)
    block = BlockDescription(
        description.layers, inputs=tuple(description.inputs), outputs=description.outputs
    )
    return name, {**taken, name: block}

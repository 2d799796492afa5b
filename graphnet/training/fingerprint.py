"""Fingerprint: what identifies a data set, so that a resumed run notices changed data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_128

from graphnet.errors import blame
from graphnet.sdk import Gallery, Pairs, Stream, by
from graphnet.training.samples import Samples
from graphnet.training.state import Fingerprint

_KIND = "xxh3:"
# Pairs of a stream, and images of a gallery, each of which must be computed or decoded.
_SAMPLED = 8


def fingerprint(data: Pairs | Stream | Gallery, *, seed: int) -> Fingerprint:
    """Compute what identifies a data set.

    The digest covers all pairs in memory. Of a stream, it covers what `Stream.source` yields, and some pairs
    of its first epoch with this seed; of a gallery, some images; of a torch Dataset, nothing.
    """
    shapes = [] if isinstance(data, Gallery) else [data.input_shape, *data.target_shapes.values()]
    return Fingerprint(
        pairs=len(data),
        shapes=[list(shape) for shape in shapes],
        contents="" if isinstance(data, Samples) else _digest(_contents(data, seed)),
    )


def _contents(data: Pairs | Stream | Gallery, seed: int) -> Iterable[Tensor | np.ndarray]:
    """What identifies the pairs."""
    if isinstance(data, Pairs):
        yield from (data.inputs, data.targets)
        return
    index = torch.linspace(0, len(data) - 1, min(len(data), _SAMPLED)).long().tolist()
    if isinstance(data, Gallery):
        for i in index:
            yield from data[i]
        return
    with blame(f"the data, {type(data).__name__}: ", "batch"):
        yield from data.batch(seed, 0, index)
    with blame(f"the data, {type(data).__name__}: ", "source"):
        yield from data.source()


def is_comparable(then: Fingerprint) -> bool:
    """Whether a fingerprint was computed as `fingerprint` does now."""
    return then.contents.startswith(_KIND) or not then.contents


def difference(then: Fingerprint, now: Fingerprint) -> str:
    """Say how two fingerprints differ; an empty text if they are equal.

    >>> difference(
    ...     Fingerprint(pairs=9, shapes=[[3, 8, 8]], contents="a"),
    ...     Fingerprint(pairs=8, shapes=[[3, 8, 8]], contents="b"),
    ... )
    'it had 9 pairs of 3x8x8, now it has 8 pairs of 3x8x8'
    """
    if then == now:
        return ""
    if (then.pairs, then.shapes) == (now.pairs, now.shapes):
        return f"it still has {now.pairs} pairs, but their contents differ"
    return f"it had {_size(then)}, now it has {_size(now)}"


def _size(found: Fingerprint) -> str:
    shapes = " and ".join(by(shape) for shape in found.shapes)
    return f"{found.pairs} pairs{shapes and f' of {shapes}'}"


def _digest(contents: Iterable[Tensor | np.ndarray]) -> str:
    digest = xxh3_128()
    for one in contents:
        tensor = torch.as_tensor(one).detach().cpu().contiguous()
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return _KIND + digest.hexdigest()

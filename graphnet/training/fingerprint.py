"""Fingerprint: a few values that identify a data set, so that a resumed run notices changed data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import blame
from graphnet.sdk import Gallery, Pairs, Stream, by
from graphnet.training.samples import Samples

_SAMPLED = {Pairs: 256, Stream: 8, Gallery: 4}  # few where each pair must be computed or decoded


def fingerprint(data: Pairs | Stream | Gallery, *, seed: int) -> dict[str, Any]:
    """Return plain data that identifies a data set.

    Args:
        data: the data set.
        seed: the seed of a stream; its pairs are those of its first epoch.

    Returns:
        "pairs", their number; "shapes", those of one input and its targets, [] for a gallery, whose images
        differ in size; "contents", a hash of some pairs that are evenly spread over the data set, "" for
        a torch Dataset, whose samples may be random.
    """
    (kind,) = (kind for kind in _SAMPLED if isinstance(data, kind))
    count = min(len(data), _SAMPLED[kind])
    index = torch.linspace(0, len(data) - 1, count).long().tolist()
    sampled: Iterable[Tensor]
    if isinstance(data, Pairs):
        sampled = (data.inputs[index], data.targets[index])
    elif isinstance(data, Samples):
        sampled = ()
    elif isinstance(data, Stream):
        with blame(f"the data, {type(data).__name__}: ", "batch"):
            sampled = data.batch(seed, 0, index)
    else:
        sampled = [half for i in index for half in data[i]]
    shapes = [] if isinstance(data, Gallery) else [data.input_shape, *data.target_shapes.values()]
    return {
        "pairs": len(data),
        "shapes": [list(shape) for shape in shapes],
        "contents": "" if isinstance(data, Samples) else _hash(sampled),
    }


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say how two fingerprints differ; an empty text if they are equal.

    >>> difference(
    ...     {"pairs": 9, "shapes": [[3, 8, 8]], "contents": "a"},
    ...     {"pairs": 8, "shapes": [[3, 8, 8]], "contents": "b"},
    ... )
    'it had 9 pairs of 3x8x8, now it has 8 pairs of 3x8x8'
    """
    if then == now:
        return ""
    if not then:
        return "the checkpoint does not say which data it saw"
    if (then["pairs"], then["shapes"]) == (now["pairs"], now["shapes"]):
        return f"it still has {now['pairs']} pairs, but their contents differ"
    return f"it had {_size(then)}, now it has {_size(now)}"


def _size(found: Mapping[str, Any]) -> str:
    shapes = " and ".join(by(shape) for shape in found["shapes"])
    return f"{found['pairs']} pairs{shapes and f' of {shapes}'}"


def _hash(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()

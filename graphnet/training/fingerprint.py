"""Fingerprint: what a data set holds, in a few plain values, so that a resumed run notices another one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import blame
from graphnet.sdk import Gallery, Pairs, Stream

_SEEN = {Pairs: 256, Stream: 8, Gallery: 4}  # pairs that are read: a stream and a gallery make them


def fingerprint(data: Pairs | Stream | Gallery, *, seed: int) -> dict[str, Any]:
    """How many pairs, of which shapes, and a hash of some of them, evenly spread; plain data for JSON.

    Those of a stream are of its first epoch with this seed; shapes of a gallery's images differ: [].
    """
    (kind,) = (kind for kind in _SEEN if isinstance(data, kind))
    count = min(len(data), _SEEN[kind])
    index = torch.linspace(0, len(data) - 1, count).long().tolist()
    seen: Iterable[Tensor]
    if isinstance(data, Pairs):
        seen = (data.inputs[index], data.targets[index])
    elif isinstance(data, Stream):
        with blame(f"the data, {type(data).__name__}: ", "batch"):
            seen = data.batch(seed, 0, index)
    else:
        seen = [half for i in index for half in data[i]]
    shapes = [] if isinstance(data, Gallery) else [data.input_shape, *data.target_shapes.values()]
    return {
        "pairs": len(data),
        "shapes": [list(shape) for shape in shapes],
        "contents": _hash(seen),
    }


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, how two fingerprints differ; empty where they are equal."""
    if then == now:
        return ""
    if not then:
        return "the checkpoint does not say which data it saw"
    if (then["pairs"], then["shapes"]) == (now["pairs"], now["shapes"]):
        return f"it has {now['pairs']} pairs as it had, but other ones"
    return f"it had {_size(then)}, now it has {_size(now)}"


def _size(found: Mapping[str, Any]) -> str:
    shapes = " and ".join("x".join(map(str, shape)) for shape in found["shapes"])
    return f"{found['pairs']} pairs{shapes and f' of {shapes}'}"


def _hash(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()

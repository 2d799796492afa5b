"""Collectives: what the processes of a training do together, as definitions that a plan calls.

The engine underneath is torch.distributed: gloo on CPUs, NCCL on GPUs. A collective starts in one call and is
waited for in another, so that other calls run in the meantime.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.sdk.layer import Layer

if torch.distributed.is_available():  # it registers the operators on meta tensors
    from torch.distributed import _functional_collectives  # noqa: F401

BUCKET_BYTES = 25 << 20


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a training, as its plan knows them.

    Args:
        count: their number.
        groups: the names of the groups in torch.distributed over which sums are made, one after the other:
            the group of all processes, or groups of pairs.
        bucket_bytes: gradients are sent when so many bytes are ready.

    >>> Processes(count=2, groups=("0",)).bucket_bytes
    26214400
    """

    count: int = 1
    groups: tuple[str, ...] = ()
    bucket_bytes: int = BUCKET_BYTES


ALONE = Processes()


class AllReduce(Layer):
    """Starts the sum of the xs over the processes of a group; `Wait` ends it.

    The xs are laid one after the other into one bucket, so that many small tensors are sent at once.
    xs: any shapes, all of one dtype; y: (number of all elements,).

    Attributes:
        group: the name of the group in torch.distributed.
        channels_last: for each x, whether its elements lie in the order N H W C, in which they are sent.
    """

    group: str
    channels_last: tuple[bool, ...]

    def forward(self, *xs: Tensor) -> Tensor:
        flat = [
            (x.permute(0, 2, 3, 1) if last else x).reshape(-1)
            for x, last in zip(xs, self.channels_last, strict=True)
        ]
        bucket = flat[0] if len(flat) == 1 else torch.cat(flat)
        total: Tensor = torch.ops._c10d_functional.all_reduce(bucket, "sum", self.group)
        return total


class Wait(Layer):
    """Waits for a collective that was started; y holds its result, in the memory of the bucket."""

    overwrites: ClassVar[Mapping[str, str]] = {"y": "bucket"}

    def forward(self, bucket: Tensor) -> Tensor:
        done: Tensor = torch.ops._c10d_functional.wait_tensor(bucket)
        return done

    def forward_(self, bucket: Tensor) -> Tensor:
        if bucket.is_meta:  # there the operator returns another storage than it does elsewhere
            return bucket
        return self.forward(bucket)


class FromBucket(Layer):
    """One tensor of a bucket, as a view: the elements from `start`, in the shape that was sent.

    Attributes:
        start: the number of the elements before it.
        shape: its shape.
        channels_last: whether its elements were sent in the order N H W C.
    """

    start: int
    shape: tuple[int, ...]
    channels_last: bool = False

    def forward(self, bucket: Tensor) -> Tensor:
        stored = self.shape
        if self.channels_last:
            n, c, h, w = self.shape
            stored = (n, h, w, c)
        tensor = bucket.narrow(0, self.start, math.prod(stored)).view(stored)
        return tensor.permute(0, 3, 1, 2) if self.channels_last else tensor

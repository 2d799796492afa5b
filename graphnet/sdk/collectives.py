"""Collectives: what the processes of a training do together, as definitions that a plan calls.

The engine underneath is torch.distributed: gloo on CPUs, NCCL on GPUs. A collective starts in one call and is
waited for in another, so that other calls run in the meantime.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from graphnet.sdk.definition import Definition
from graphnet.sdk.intrinsics import DType
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
        reduce_dtype: the dtype in which gradients are sent; None is that of the parameters.

    >>> Processes(count=2, groups=("0",)).bucket_bytes
    26214400
    """

    count: int = 1
    groups: tuple[str, ...] = ()
    bucket_bytes: int = BUCKET_BYTES
    reduce_dtype: DType | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of processes in each group."""
        return (self.count,) if len(self.groups) == 1 else (2,) * len(self.groups)


ALONE = Processes()


@dataclass(frozen=True, slots=True)
class Sharding:
    """How the elements of a tensor are divided among processes: equal shards, in the order of memory.

    Zeros are appended, so that the shards are equal.

    Args:
        shape: the shape of the tensor.
        channels_last: whether its elements lie in the order N H W C.
        sizes: the number of processes in each group over which it is divided, one after the other.
        pieces: the number of elements of the tensor and the zeros is a multiple of it; a multiple of the
            number of processes.

    >>> sharding = Sharding((5,), channels_last=False, sizes=(2,), pieces=2)
    >>> sharding.rows(torch.arange(5))
    tensor([[0, 1, 2],
            [3, 4, 0]])
    >>> sharding.whole(sharding.rows(torch.arange(5)))
    tensor([0, 1, 2, 3, 4])
    """

    shape: tuple[int, ...]
    channels_last: bool
    sizes: tuple[int, ...]
    pieces: int

    @property
    def count(self) -> int:
        """The number of shards."""
        return math.prod(self.sizes)

    @property
    def size(self) -> int:
        """The number of elements of a shard."""
        return math.ceil(math.prod(self.shape) / self.pieces) * self.pieces // self.count

    def number(self, rank: Any) -> Any:
        """The number of the shard that the process with this number, an int or a 0-dim tensor, has.

        The first group divides the tensor, the second divides its shards, and so on.

        >>> [Sharding((8,), False, (2, 2), 4).number(rank) for rank in range(4)]
        [0, 2, 1, 3]
        """
        found = 0
        for size in self.sizes:
            found, rank = found * size + rank % size, rank // size
        return found

    def rows(self, x: Tensor) -> Tensor:
        """The shards of a tensor: (count, size)."""
        flat = _flat(x, self.channels_last)
        padding = self.count * self.size - flat.numel()
        if padding:
            flat = torch.nn.functional.pad(flat, (0, padding))
        return flat.view(self.count, self.size)

    def whole(self, rows: Tensor) -> Tensor:
        """The tensor whose shards are these."""
        flat = rows.reshape(-1)[: math.prod(self.shape)]
        return _shaped(flat, self.shape, self.channels_last)


def _flat(x: Tensor, channels_last: bool) -> Tensor:
    """The elements of a tensor as they lie in memory, in the order N H W C with channels_last."""
    return (x.permute(0, 2, 3, 1) if channels_last else x).reshape(-1)


def _shaped(flat: Tensor, shape: tuple[int, ...], channels_last: bool) -> Tensor:
    """The tensor of this shape whose elements `_flat` has returned, as a view."""
    if not channels_last:
        return flat.view(shape)
    n, c, h, w = shape
    return flat.view(n, h, w, c).permute(0, 3, 1, 2)


class Exchange(Layer):
    """A layer by which processes exchange values: all of them must call it at the same place of a step.

    Attributes:
        group: the name of the group in torch.distributed.
        size: the number of its processes.

    >>> [kind.__name__ for kind in Exchange.__subclasses__()]
    ['AllReduce', 'ReduceScatter', 'AllGather', 'GatherStatistics']
    """

    group: str
    size: int


class AllReduce(Exchange):
    """Starts the sum of the xs over the processes of a group; `Wait` ends it.

    The xs are laid one after the other into one bucket, so that many small tensors are sent at once.
    xs: any shapes, all of one dtype; y: (number of all elements,).

    Attributes:
        channels_last: for each x, whether its elements lie in the order N H W C, in which they are sent.
    """

    channels_last: tuple[bool, ...]

    def forward(self, *xs: Tensor) -> Tensor:
        flat = [_flat(x, last) for x, last in zip(xs, self.channels_last, strict=True)]
        bucket = flat[0] if len(flat) == 1 else torch.cat(flat)
        total: Tensor = torch.ops._c10d_functional.all_reduce(bucket, "sum", self.group)
        return total


class Wait(Layer):
    """Waits for a collective that was started; y holds its result, in the memory of the bucket."""

    overwrites: ClassVar[Mapping[str, str]] = {"y": "bucket"}

    def forward(self, bucket: Tensor) -> Tensor:
        return _wait(bucket)

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
        flat = bucket.narrow(0, self.start, math.prod(self.shape))
        return _shaped(flat, self.shape, self.channels_last)


class ToBucket(Layer):
    """The shards of the xs, those of one process after those of the other.

    xs: any shapes, all of one dtype; y: (number of all elements,).

    Attributes:
        shardings: how each x is divided.
    """

    shardings: tuple[Sharding, ...]

    def forward(self, *xs: Tensor) -> Tensor:
        rows = [one.rows(x) for one, x in zip(self.shardings, xs, strict=True)]
        return torch.cat(rows, dim=1).reshape(-1)


class ReduceScatter(Exchange):
    """Starts the sum of buckets over a group, of which each process gets its own part; `Wait` ends it.

    bucket: (n,); y: (n / size,).
    """

    def forward(self, bucket: Tensor) -> Tensor:
        scatter = torch.ops._c10d_functional.reduce_scatter_tensor
        part: Tensor = scatter(bucket, "sum", self.size, self.group)
        return part


class AllGather(Exchange):
    """Starts to send the xs of each process of a group to all others; `Wait` ends it.

    xs: (n_i,), all of one dtype; y: (size * sum of all n_i,), the xs of the first process of the group first.
    """

    def forward(self, *xs: Tensor) -> Tensor:
        bucket = xs[0] if len(xs) == 1 else torch.cat(xs)
        gather = torch.ops._c10d_functional.all_gather_into_tensor
        every: Tensor = gather(bucket, self.size, self.group)
        return every


class GatherStatistics(Exchange):
    """The tensors x of all processes of a group; it waits for them.

    The gradient of x is the sum over all processes of the gradients of its part of y.
    x: any shape; y: (size, *shape of x).
    """

    def forward(self, x: Tensor) -> Tensor:
        gather = torch.ops._c10d_functional.all_gather_into_tensor
        every = _wait(gather(x.reshape(-1), self.size, self.group))
        return every.view(self.size, *x.shape)

    def backward(self, grad_y: Tensor) -> Tensor:
        scatter = torch.ops._c10d_functional.reduce_scatter_tensor
        own = _wait(scatter(grad_y.reshape(-1), "sum", self.size, self.group))
        return own.view(grad_y.shape[1:])


def _wait(started: Tensor) -> Tensor:
    done: Tensor = torch.ops._c10d_functional.wait_tensor(started)
    return done


class Shard(Layer):
    """The shard of x that the process with the number `rank` has: (size,); rank: 0-dim int64.

    Attributes:
        sharding: how x is divided.
    """

    sharding: Sharding

    def forward(self, x: Tensor, rank: Tensor) -> Tensor:
        number = self.sharding.number(rank).reshape(1)
        return self.sharding.rows(x).index_select(0, number).view(-1)


class ShardNorms(Layer):
    """The norms of the pieces of which the xs consist: in each, of the elements of all xs together.

    A piece is computed in the same way however many of them a process has, so that norms have the same bits
    for any number of processes.
    xs: shards, or whole tensors if there is one process; y: (pieces of a process,), in float32 or the widest
    dtype of the xs.

    Attributes:
        order: "2", or "inf" for the largest magnitude.
        shardings: how the tensors of which the xs are shards are divided.
    """

    order: Literal["2", "inf"]
    shardings: tuple[Sharding, ...]

    def forward(self, *xs: Tensor) -> Tensor:
        pairs = zip(self.shardings, xs, strict=True)
        rows = [x if one.count > 1 else one.rows(x) for one, x in pairs]
        first = self.shardings[0]
        parts = [row.view(first.pieces // first.count, -1).unbind() for row in rows]
        order = float(self.order)
        together = [norms(piece, order) for piece in zip(*parts, strict=True)]
        return torch.stack([torch.linalg.vector_norm(one, order) for one in together])


class AssignGathered(Definition):
    """Writes into a parameter what the processes have gathered: a shard of it from each of them.

    Attributes:
        start: the number of the elements of a process before those of the parameter.
        sharding: how the parameter is divided.

    >>> parameter = torch.zeros(3)
    >>> sharding = Sharding((3,), channels_last=False, sizes=(2,), pieces=2)
    >>> bucket = torch.tensor([9.0, 1.0, 2.0, 9.0, 3.0, 0.0])
    >>> AssignGathered(start=1, sharding=sharding).update(parameter, bucket)
    >>> parameter
    tensor([1., 2., 3.])
    """

    start: int
    sharding: Sharding

    def update(self, parameter: Tensor, bucket: Tensor) -> None:
        """Copy the shards into the parameter; bucket: (number of processes * elements of each,)."""
        rows = bucket.view(self.sharding.count, -1)
        own = rows.narrow(1, self.start, self.sharding.size)
        parameter.copy_(self.sharding.whole(own))


def norms(xs: tuple[Tensor, ...], order: float) -> Tensor:
    """The norm of each x, in float32 or the widest of their dtypes: (number of xs,).

    >>> norms((torch.tensor([3.0, 4.0]), torch.ones(4)), 2)
    tensor([5., 2.])
    """
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in xs), torch.float32)
    return torch.stack(torch._foreach_norm(xs, order, dtype))

"""Processes: the processes of torch.distributed that compute one training together.

    torch.distributed.init_process_group("gloo")  # or "nccl", on GPUs; torchrun says how many there are
    processes = gn.join_processes()
    program = model.compile((8, 3, 32, 32), loss="mse", optimizer=gn.SGD(lr=10.0), processes=processes)

Each process compiles the same model, and calls `step` with its own part of each batch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from xxhash import xxh3_128

from graphnet.description import UpdateSettings
from graphnet.errors import InputError
from graphnet.model.exchange import all_tensors, every_tensor, every_text
from graphnet.passes import MicroBatches
from graphnet.plan import Plan, generate
from graphnet.sdk import ALONE, BUCKET_BYTES, Executor, Processes, Sharding
from graphnet.system import parse_bytes

MICRO_BATCHES = 4  # in a step with deterministic: true, in all processes together


@dataclass(frozen=True)
class Joined:
    """The processes of a training, and which of them this one is.

    Attributes:
        rank: the number of this process, from 0.
        count: the number of processes.
        timeout_s: how many seconds a process waits for another in groups of two; None for torch's default.
    """

    rank: int = 0
    count: int = 1
    timeout_s: float | None = None

    def micro_batches(self, *, deterministic: bool) -> MicroBatches:
        """The parts into which a batch is cut, and how many of them this process computes.

        Raises InputError if the processes cannot share the parts.
        """
        if not deterministic:
            return MicroBatches(1, self.count)
        if MICRO_BATCHES % self.count:
            raise InputError(
                f"deterministic: true cuts a batch into {MICRO_BATCHES} parts, so that 1, 2 and 4 processes "
                f"give the same bits; there are {self.count} processes. Start another number, or leave "
                f"deterministic out."
            )
        return MicroBatches(MICRO_BATCHES // self.count, MICRO_BATCHES, deterministic=True)

    def check_executor(self, executor: Executor) -> None:
        """Raise InputError for an executor with which the processes would not run the same code."""
        if self.count > 1 and executor.switches:
            name = type(executor).__name__.lower()
            raise InputError(
                f"the executor {name} goes over to compiled code when that is ready, which is at another "
                f"step in each process. Give eager or inductor."
            )

    def named(self, updates: UpdateSettings) -> Processes:
        """The processes as a plan knows them, with the names of the groups that add up."""
        if self.count == 1:
            return ALONE
        world = torch.distributed.group.WORLD
        assert world is not None
        pairs, bucket = updates.deterministic, updates.bucket
        return Processes(
            self.count,
            _pairs(self.count, self.timeout_s) if pairs else (world.group_name,),
            BUCKET_BYTES if bucket is None else parse_bytes(bucket, whole=0),
            updates.reduce_dtype,
        )

    def check_plans(self, plans: Iterable[Plan], *others: object) -> None:
        """Raise InputError unless all processes have these plans, and the same `others`."""
        if self.count > 1:
            advice = "Compare the models, the settings, the shapes, and the installed versions."
            self._check_same("another plan", _plan_digest(plans, *others), advice)

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Raise InputError unless all processes start from these weights, or other tensors by name."""
        if self.count > 1:
            self._check_same(
                "other weights", _tensors_digest(weights), "Give the same seed or file."
            )

    def check_data(self, identity: str) -> None:
        """Raise InputError unless all processes have data with this identity."""
        if self.count > 1:
            digest = xxh3_128(identity.encode()).digest()
            self._check_same("other data", digest, "Give all of them the same files.")

    def _check_same(self, what: str, digest: bytes, advice: str) -> None:
        """Raise InputError if processes have different digests; `what` says of what, as in "another plan"."""
        every = every_tensor(torch.frombuffer(bytearray(digest), dtype=torch.uint8))
        others = [rank for rank, one in enumerate(every) if not torch.equal(one, every[0])]
        if others:
            raise InputError(
                f"process {others[0]} has {what} than process 0, but all processes of a training need "
                f"the same. {advice}"
            )

    def part(self, batch: int) -> slice:
        """The part of a batch of so many samples that this process computes."""
        size = batch // self.count
        return slice(size * self.rank, size * (self.rank + 1))

    def greatest(self, *numbers: int) -> tuple[int, ...]:
        """For each number, the greatest that any process gives; all processes call it."""
        if self.count == 1:
            return numbers
        return tuple(torch.stack(every_tensor(torch.tensor(numbers))).amax(0).tolist())

    def texts(self, mine: str) -> list[str]:
        """The text that each process gives, in their order; all processes call it."""
        return [mine] if self.count == 1 else every_text(mine)

    def tensors(self, mine: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the processes give, each under its own names; all processes call it."""
        return dict(mine) if self.count == 1 else all_tensors(mine)

    def whole(self, shard: Tensor, sharding: Sharding) -> Tensor:
        """The tensor of which each process has a shard; all processes call it."""
        if sharding.count == 1:
            return shard
        every = every_tensor(shard)
        numbers = [sharding.number(rank) for rank in range(self.count)]
        return sharding.whole(torch.stack([every[numbers.index(i)] for i in range(self.count)]))

    def shard(self, whole: Tensor, sharding: Sharding) -> Tensor:
        """The shard of a tensor that this process has."""
        return whole if sharding.count == 1 else sharding.rows(whole)[sharding.number(self.rank)]


SINGLE = Joined()


def join_processes(timeout_s: float | None = None) -> Joined:
    """The processes of torch.distributed, after torch.distributed.init_process_group; alone without it.

    Args:
        timeout_s: how many seconds a process waits for another in the sums of `deterministic`, if that is not
            torch's default. In all else it waits as long as init_process_group was told.

    >>> join_processes().count
    1
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return SINGLE
    return Joined(distributed.get_rank(), distributed.get_world_size(), timeout_s)


def _plan_digest(plans: Iterable[Plan], *others: object) -> bytes:
    """A digest of the text of plans, of the definitions in them, and of what else decides the results."""
    digest = xxh3_128(repr((torch.__version__, *others)).encode())
    for plan in plans:
        digest.update(generate(plan).text.encode())
        for step in plan.steps:
            digest.update(f"{step.call.name} {step.call.layer!r}\n".encode())
    return digest.digest()


def _tensors_digest(tensors: Mapping[str, Tensor]) -> bytes:
    """A digest of tensors and their names."""
    digest = xxh3_128()
    for name in sorted(tensors):
        digest.update(name.encode())
        flat = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.digest()


@functools.cache
def _pairs(count: int, timeout_s: float | None) -> tuple[str, ...]:
    """Make the groups of pairs: processes 0 and 1, 2 and 3; then 0 and 2, 1 and 3.

    Each process registers its own group of a level under the same name, so that the plans of all are equal.
    """
    distributed = torch.distributed
    rank, names, distance = distributed.get_rank(), list[str](), 1
    timeout = None if timeout_s is None else timedelta(seconds=timeout_s)
    while distance < count:
        name = f"graphnet pairs {distance}"
        for first in range(count):
            if not first & distance:
                group = distributed.new_group([first, first | distance], timeout=timeout)
                if rank in (first, first | distance):
                    register = torch._C._distributed_c10d._register_process_group
                    register(name, group)  # type: ignore[arg-type]
        names.append(name)
        distance *= 2
    return tuple(names)

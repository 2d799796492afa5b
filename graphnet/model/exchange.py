"""Exchange: what the processes of a training tell each other between two steps, by torch.distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import safetensors.torch
import torch
from torch import Tensor


def every_tensor(mine: Tensor) -> list[Tensor]:
    """The tensor of each process, in the order of their numbers; all have one shape and dtype."""
    on_cpu = "cpu" in torch.distributed.get_backend_config()
    mine = mine.to("cpu" if on_cpu else "cuda")  # NCCL alone takes tensors on GPUs only
    every = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(every, mine)
    return [one.cpu() for one in every]


def every_text(mine: str) -> list[str]:
    """The text of each process, in the order of their numbers."""
    return [data.decode() for data in _every_bytes(mine.encode())]


def all_tensors(mine: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of all processes by name; no two processes have tensors of one name."""
    found: dict[str, Tensor] = {}
    for data in _every_bytes(safetensors.torch.save({n: t.contiguous() for n, t in mine.items()})):
        found |= safetensors.torch.load(data)
    return found


def _every_bytes(mine: bytes) -> Iterator[bytes]:
    sizes = [int(size) for size in every_tensor(torch.tensor(len(mine)))]
    padded = torch.zeros(max(1, *sizes), dtype=torch.uint8)
    padded[: len(mine)] = torch.frombuffer(bytearray(mine or b"\0"), dtype=torch.uint8)[: len(mine)]
    for data, size in zip(every_tensor(padded), sizes, strict=True):
        yield data[:size].numpy().tobytes()

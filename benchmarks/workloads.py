"""Workloads: which network is run how, on what; and contenders: the ways to run one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from benchmarks.networks import CHAIN, DNCNN, DNCNN17, PAPER, UNET, Network
from benchmarks.timing import Run


class Task(StrEnum):
    """A training step - forward, loss, reverse pass, update - or the forward pass alone."""

    TRAIN = "train"
    INFER = "infer"


class Side(StrEnum):
    """Whose code a contender is."""

    GRAPHNET = "graphnet"
    TORCH = "torch"
    JAX = "jax"


@dataclass(frozen=True)
class Saving:
    """A way in which graphnet saves memory, as arguments of Model.compile, or of Model.predict."""

    name: str
    memory: str | None = None
    saved_dtype: str | None = None

    def __str__(self) -> str:
        return f"in {self.memory} of the memory" if self.memory else f"keeping {self.saved_dtype}"


@dataclass(frozen=True)
class Workload:
    """A network on inputs of one shape (N, C, H, W); graphnet runs it with these savings too.

    `devices` are the types of those that it is measured on. On CUDA, `together` is a number of training steps
    that are also measured as one CUDA graph.
    """

    name: str
    network: Network
    shape: tuple[int, int, int, int]
    task: Task
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    savings: tuple[Saving, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    together: int = 1

    def __str__(self) -> str:
        what = "training step" if self.task is Task.TRAIN else "inference"
        return f"{self.network.title}, {what}, {'x'.join(map(str, self.shape))}"

    def images(self, device: torch.device, *, draw: int = 0) -> tuple[Tensor, Tensor]:
        """Two noisy versions of the same smooth, pale images, N C H W; each `draw` has its own noise."""
        n, c, h, w = self.shape
        generator = torch.Generator().manual_seed(0)
        coarse = 0.35 + 0.3 * torch.rand(n, c, max(2, h // 8), max(2, w // 8), generator=generator)
        clean = torch.nn.functional.interpolate(
            coarse.to(device), (h, w), mode="bilinear", align_corners=False
        )
        noise = torch.Generator(device).manual_seed(1 + draw)
        first, second = (
            (clean + 0.03 * torch.randn(clean.shape, generator=noise, device=device)).clamp(0, 1)
            for _ in range(2)
        )
        return first, second


@dataclass(frozen=True)
class Contender:
    """One way to run a workload. `build` makes its tensors and returns what is timed.

    `setting` says in words how it is run; names are unique in a workload. One with a `saving` is no
    candidate for the best of its side. What is `captured` is replayed, without a call of the allocator. A
    call does `steps` training steps; times are those of one.
    """

    side: Side
    setting: str
    precision: str
    build: Callable[[], Run]
    compiled: bool = False
    captured: bool = False
    saving: Saving | None = None
    steps: int = 1

    @property
    def name(self) -> str:
        return f"{self.side}: {self.setting}, {self.precision}"


class Unavailable(Exception):
    """A contender that cannot run here; the message says why."""


def _both(
    letter: str, network: Network, shape: tuple[int, int, int, int]
) -> tuple[Workload, Workload]:
    return (
        Workload(f"{letter}-train", network, shape, Task.TRAIN),
        Workload(f"{letter}-infer", network, shape, Task.INFER),
    )


WORKLOADS = (
    Workload("a32-train", PAPER, (32, 3, 32, 32), Task.TRAIN, together=32),
    Workload("a32-infer", PAPER, (32, 3, 32, 32), Task.INFER),
    *_both("a512", PAPER, (512, 3, 32, 32)),
    *_both("b", DNCNN, (16, 3, 40, 40)),
    Workload(
        "c-train",
        UNET,
        (16, 3, 64, 64),
        Task.TRAIN,
        savings=(
            Saving("keep16", saved_dtype="bfloat16"),
            Saving("memory50", memory="50%"),
            Saving("memory39", memory="39%"),
        ),
    ),
    Workload("c-infer", UNET, (16, 3, 64, 64), Task.INFER),
    Workload(
        "c2048-infer",
        UNET,
        (1, 3, 2048, 2048),
        Task.INFER,
        savings=(Saving("memory50", memory="50%"),),
    ),
    Workload("d-train", CHAIN, (1, 4, 4, 4), Task.TRAIN, ("float32",)),
    Workload("d-infer", CHAIN, (1, 4, 4, 4), Task.INFER, ("float32",)),
    Workload("e-train", DNCNN17, (128, 3, 40, 40), Task.TRAIN, devices=("cuda",)),
    Workload("f-train", UNET, (64, 3, 128, 128), Task.TRAIN, devices=("cuda",)),
    Workload("f24mp-infer", UNET, (1, 3, 4000, 6000), Task.INFER, devices=("cuda",)),
)

"""All contenders of a workload."""

from __future__ import annotations

import torch

from benchmarks import graphnet_side, jax_side, torch_side
from benchmarks.workloads import Contender, Workload


def of(workload: Workload, device: torch.device) -> list[Contender]:
    """graphnet's, torch's and JAX's contenders."""
    return [
        contender
        for side in (graphnet_side, torch_side, jax_side)
        for contender in side.contenders(workload, device)
    ]

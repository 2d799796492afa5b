"""The networks of the benchmarks: each as a YAML file and, with the same weights, in plain torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import graphnet as gn
from benchmarks import torch_networks
from graphnet.graph import Kind

_HERE = Path(__file__).parent
_EXAMPLES = _HERE.parent.parent / "examples" / "denoisers"
_SEED = 0


@dataclass(frozen=True)
class Network:
    """A network, and how it is trained: mean squared error, and SGD or Adam with this rate."""

    title: str
    file: Path
    make: Callable[[], nn.Module]
    optimizer: str
    lr: float

    def module(self) -> nn.Module:
        """The torch module; its weights are the same every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return self.make()

    def model(self) -> gn.Model:
        """The graphnet model with the weights of `module`."""
        return with_weights_of(self.module(), gn.load(self.file))


def with_weights_of(module: nn.Module, model: gn.Model) -> gn.Model:
    """The model with a torch module's weights, whose parameters come in the same order."""
    names = model.plan((1, model.input_channels or 3, 16, 16)).of(Kind.PARAMETER)
    tensors = [parameter.detach() for parameter in module.parameters()]
    return model.with_weights(dict(zip(names, tensors, strict=True)))


PAPER = Network(
    "the paper's network",
    _EXAMPLES / "seed.yaml",
    torch_networks.paper,
    "sgd",
    3.0,  # 10, the paper's, is on the edge of what is stable over hundreds of steps on one batch
)
DNCNN = Network("a DnCNN", _HERE / "dncnn.yaml", torch_networks.dncnn, "adam", 1e-3)
DNCNN17 = Network("DnCNN-17", _EXAMPLES / "dncnn.yaml", torch_networks.dncnn17, "adam", 1e-3)
UNET = Network("a residual U-Net", _EXAMPLES / "unet.yaml", torch_networks.UNet, "adam", 1e-3)
CHAIN = Network("200 tiny layers", _HERE / "chain.yaml", torch_networks.chain, "sgd", 0.1)
NETWORKS = (PAPER, DNCNN, UNET, CHAIN)

"""Small models and layers that several tests use."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphnet.description import ModelDescription, parse
from graphnet.sdk import Constant, Layer, ParameterSpec, Register, Specs, StateSpec, hookimpl
from graphnet.sdk.random import uniform


class Swish(Layer):
    """x * sigmoid(beta * x)."""

    saves: ClassVar[tuple[str, ...]] = ("gate",)
    pointwise: ClassVar[bool] = True
    beta: float = 1.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(self.beta * x)
        return x * gate, gate

    def backward(self, grad_y: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        return grad_y * (gate + self.beta * x * gate * (1 - gate))


class Scale(Layer):
    """x times one trained number; an input given twice and a parameter make sums of gradients."""

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec]:
        return {"factor": ParameterSpec((1,), Constant(0.5))}

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        return x * factor

    def backward(self, grad_y: Tensor, x: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        return grad_y * factor, (grad_y * x).sum().reshape(1)


class Halves(Layer):
    """The two halves of the channels: two outputs, views of the input."""

    outputs: ClassVar[tuple[str, ...]] = ("first", "second")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, 1)
        return first, second

    def backward(self, grad_first: Tensor, grad_second: Tensor) -> Tensor:
        return torch.cat((grad_first, grad_second), 1)


class Center(Layer):
    """x minus a running mean over batches, which training updates and inference only reads."""

    updates: ClassVar[tuple[str, ...]] = ("mean",)
    momentum: float = 0.5

    def states(self, specs: Specs) -> dict[str, StateSpec]:
        return {"mean": StateSpec((specs["x"].shape[1],))}

    def forward(self, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        batch = x.mean((0, 2, 3))
        return x - mean.view(1, -1, 1, 1), mean + self.momentum * (batch - mean)

    def backward(self, grad_y: Tensor) -> Tensor:
        return grad_y

    def inference(self, x: Tensor, mean: Tensor) -> Tensor:
        return x - mean.view(1, -1, 1, 1)


class Dropout(Layer):
    """Zeroes a share p of the elements; the mask comes again from the key in backward."""

    p: float = 0.5

    def mask(self, key: Tensor, x: Tensor) -> Tensor:
        return (uniform(key, x.shape) >= self.p).to(x.dtype) / (1 - self.p)

    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        return x * self.mask(key, x)

    def backward(self, grad_y: Tensor, key: Tensor) -> Tensor:
        return grad_y * self.mask(key, grad_y)

    def inference(self, x: Tensor) -> Tensor:
        return x * 1.0


class Acme:
    """A plugin with the layers above."""

    @hookimpl
    def graphnet_layers(self, register: Register) -> None:
        for layer in (Swish, Scale, Halves, Center, Dropout):
            register(f"acme/{layer.__name__.lower()}", layer)


SEED: dict[str, Any] = {
    "name": "seed",
    "input": {"channels": 3},
    "layers": [
        {"conv2d": {"out_channels": 8, "kernel_size": 2, "stride": 2}},
        "relu",
        {"conv2d": {"out_channels": 16, "kernel_size": 2, "stride": 2}},
        "relu",
        {"upsampling": {"out_channels": 8, "kernel_size": 2, "stride": 2}},
        "relu",
        {"upsampling": {"out_channels": 3, "kernel_size": 2, "stride": 2}},
        "sigmoid",
    ],
}


def random_dag(nodes: int, seed: int, *, channels: int = 4) -> ModelDescription:
    """A DAG with convolutions, shared parameters, sums of one value with itself, views and states."""
    draw = random.Random(seed)
    conv = {"conv2d": {"out_channels": channels, "kernel_size": 3, "padding": 1}}
    layers: list[Any] = [{"id": "n0", **conv, "inputs": ["$input"]}]
    convs, made = ["n0"], ["n0"]
    for i in range(1, nodes):
        kind = draw.choice(["conv", "share", "relu", "swish", "add", "scale", "halves", "center"])
        x = draw.choice(made[-4:])
        node: dict[str, Any] = {"id": f"n{i}", "inputs": [x]}
        match kind:
            case "conv":
                node |= conv
                convs.append(f"n{i}")
            case "share":
                node |= {**conv, "share": draw.choice(convs)}
            case "add":
                node |= {"add": {}, "inputs": [x, draw.choice([x, *made[-6:]])]}
            case "halves":
                layers.append({"id": f"h{i}", "acme/halves": {}, "inputs": [x]})
                node |= {"concat": {}, "inputs": [f"h{i}.second", f"h{i}.first"]}
            case "relu":
                node |= {"relu": {}}
            case _:
                node |= {f"acme/{kind}": {}}
        layers.append(node)
        made.append(f"n{i}")
    layers.append({"id": "all", "add": {}, "inputs": made})
    return parse({"input": {"channels": channels}, "layers": layers})


def random_model(nodes: int, seed: int, *, channels: int = 4) -> ModelDescription:
    """A random DAG over two inputs: nested blocks, shared parameters, views, states and random keys."""
    draw = random.Random(seed)
    conv = {"conv2d": {"out_channels": channels, "kernel_size": 3, "padding": 1}}
    blocks = {
        "residual": {"layers": [conv, "relu", {"id": "c", **conv}, {"add": {}, "inputs": ["$input", "c"]}]},
        "nested": {
            "inputs": ["x", "z"],
            "layers": [
                {"residual": {}, "inputs": ["$x"]},
                {"id": "d", "acme/dropout": {}},
                {"add": {}, "inputs": ["d", "$z", "d"]},
            ],
        },
    }  # fmt: skip
    kinds = [
        "conv",
        "share",
        "relu",
        "sigmoid",
        "swish",
        "add",
        "scale",
        "halves",
        "center",
        "dropout",
        "residual",
        "nested",
    ]
    layers: list[Any] = [{"id": "n0", **conv, "inputs": ["$image"]}]
    convs, made = ["n0"], ["$level", "n0"]
    for i in range(1, nodes):
        kind = draw.choice(kinds)
        x, other = draw.choice(made[-3:]), draw.choice(made[-6:])
        node: dict[str, Any] = {"id": f"n{i}", "inputs": [x]}
        match kind:
            case "conv":
                node |= conv
                convs.append(f"n{i}")
            case "share":
                node |= {**conv, "share": draw.choice(convs)}
            case "add":
                node |= {"add": {}, "inputs": [x, draw.choice([x, other])]}
            case "nested":
                node |= {"nested": {}, "inputs": [x, other]}
            case "halves":
                layers.append({"id": f"h{i}", "acme/halves": {}, "inputs": [x]})
                node |= {"concat": {}, "inputs": [f"h{i}.second", f"h{i}.first"]}
            case "relu" | "sigmoid" | "residual":
                node |= {kind: {}}
            case _:
                node |= {f"acme/{kind}": {}}
        layers.append(node)
        made.append(f"n{i}")
    layers.append({"id": "all", "add": {}, "inputs": ["$level", "n0", *made[2:]]})
    inputs = {"image": {"channels": channels}, "level": {"channels": channels}}
    return parse({"inputs": inputs, "blocks": blocks, "layers": layers})

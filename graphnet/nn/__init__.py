"""NN: the paper's eager modules, with forward, backward and param, over the registered layers.

    from graphnet import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    criterion, optimizer = nn.MSE(), nn.SGD(model.param(), lr=0.1)
    loss = criterion(model(x), target)
    model.backward(criterion.backward())
    optimizer.update_parameters()

Layers come in by name; modules go out. It imports executors and below.
"""

from __future__ import annotations

from graphnet.nn.layers import (
    MSE,
    Conv2d,
    NearestUpsampling,
    ReLU,
    Sigmoid,
    TransposeConv2d,
    Upsampling,
)
from graphnet.nn.module import Module, Pair, make
from graphnet.nn.optim import SGD
from graphnet.nn.sequence import (
    GRU,
    LSTM,
    NLL,
    Attention,
    BCEWithLogits,
    CrossEntropy,
    Embedding,
    Flatten,
    LayerNorm,
    Linear,
    LogSoftmax,
    Mean,
    Permute,
    PositionEmbedding,
    Reshape,
    RMSNorm,
    Softmax,
)
from graphnet.nn.sequential import Sequential

__all__ = [
    "GRU",
    "LSTM",
    "MSE",
    "NLL",
    "SGD",
    "Attention",
    "BCEWithLogits",
    "Conv2d",
    "CrossEntropy",
    "Embedding",
    "Flatten",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "Mean",
    "Module",
    "NearestUpsampling",
    "Pair",
    "Permute",
    "PositionEmbedding",
    "RMSNorm",
    "ReLU",
    "Reshape",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "TransposeConv2d",
    "Upsampling",
    "make",
]

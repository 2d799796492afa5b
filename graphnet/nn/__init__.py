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

from graphnet.nn.convolutions import (
    Conv1d,
    Conv2d,
    Conv3d,
    DepthwiseConv1d,
    DepthwiseConv2d,
    DepthwiseConv3d,
    TransposeConv1d,
    TransposeConv2d,
    TransposeConv3d,
    Upsampling,
)
from graphnet.nn.layers import MSE, ReLU, Sigmoid
from graphnet.nn.module import Module, Pair, make
from graphnet.nn.norms import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm,
    LayerNorm1d,
    LayerNorm2d,
    LayerNorm3d,
)
from graphnet.nn.optim import SGD
from graphnet.nn.pools import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from graphnet.nn.resizing import (
    BilinearUpsampling,
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    LinearUpsampling,
    NearestUpsampling,
    NearestUpsampling1d,
    NearestUpsampling3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    TrilinearUpsampling,
)
from graphnet.nn.sequential import Sequential

__all__ = [
    "MSE",
    "SGD",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BilinearUpsampling",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "DepthwiseConv1d",
    "DepthwiseConv2d",
    "DepthwiseConv3d",
    "GlobalAvgPool",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm1d",
    "LayerNorm2d",
    "LayerNorm3d",
    "LinearUpsampling",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Module",
    "NearestUpsampling",
    "NearestUpsampling1d",
    "NearestUpsampling3d",
    "Pair",
    "ReLU",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Sequential",
    "Sigmoid",
    "TransposeConv1d",
    "TransposeConv2d",
    "TransposeConv3d",
    "TrilinearUpsampling",
    "Upsampling",
    "make",
]

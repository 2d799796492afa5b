"""Every built-in layer, loss and kernel passes the kit; the registry says which there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphnet.builtin import (
    MSE,
    BatchNorm2d,
    Conv2d,
    LayerNorm2d,
    NearestUpsampling,
    TransposeConv2d,
)
from graphnet.builtin.layers.activation import LeakyReLU, PReLU
from graphnet.builtin.layers.adaptive import AdaptiveAvgPool2d, AdaptiveMaxPool2d
from graphnet.builtin.layers.attention import SimplifiedChannelAttention, TransposedAttention
from graphnet.builtin.layers.conv import Conv1d, Conv3d
from graphnet.builtin.layers.depthwise import DepthwiseConv2d
from graphnet.builtin.layers.dropout import Dropout
from graphnet.builtin.layers.feature_norm import LayerNorm, RMSNorm
from graphnet.builtin.layers.group_norm import GroupNorm, InstanceNorm
from graphnet.builtin.layers.hard import ELU, Hardtanh
from graphnet.builtin.layers.linear import Linear
from graphnet.builtin.layers.merge import Add, BroadcastAdd, Concat, Multiply, Subtract
from graphnet.builtin.layers.norm import BatchNorm1d
from graphnet.builtin.layers.pad import (
    CircularPad2d,
    ConstantPad1d,
    ReflectionPad2d,
    ReplicationPad2d,
)
from graphnet.builtin.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.builtin.layers.pool import AvgPool2d, AvgPool3d, GlobalAvgPool, MaxPool1d, MaxPool2d
from graphnet.builtin.layers.product import Matmul
from graphnet.builtin.layers.scale import AddScalar, LayerScale, Rescale
from graphnet.builtin.layers.smooth import GELU, Softplus
from graphnet.builtin.layers.source import FixedTensor, TrainedTensor
from graphnet.builtin.layers.split import SimpleGate, Slice, Split
from graphnet.builtin.layers.transpose_conv import TransposeConv3d
from graphnet.builtin.layers.upsample import BilinearUpsampling, TrilinearUpsampling
from graphnet.builtin.losses.classes import BCEWithLogits
from graphnet.builtin.losses.masked import MaskedMSE
from graphnet.builtin.losses.pixel import L1, PSNR, Charbonnier, Huber
from graphnet.builtin.losses.ssim import MSSSIM, SSIM
from graphnet.errors import GraphError
from graphnet.sdk import Entry, Kernel, load_registry
from graphnet.testing import CHECKS, Report, Sample, Status, assert_checks_pass, cases_for
from graphnet.testing.report import judge
from tests.support.references import REFERENCES, with_expected

REGISTRY = load_registry(entry_points=False)
KERNELS = {n: e for n, e in REGISTRY.kernels.items() if issubclass(e.value, Kernel)}
ENTRIES: dict[str, Entry] = {**REGISTRY.layers, **REGISTRY.losses, **KERNELS}
IMAGE = (2, 4, 6, 6)


SIGNAL, VOLUME = (2, 4, 7), (1, 2, 4, 3, 4)


def conv(shape: tuple[int, ...] = IMAGE, **fields: Any) -> Sample:
    return Sample(Conv2d(**fields), [shape])


def smooth(n: int, c: int, height: int, width: int) -> torch.Tensor:
    """An image of waves, 0 to 1."""
    waves = torch.arange(height)[:, None] * 0.7 + torch.arange(width) * 1.3
    return (0.5 + 0.5 * waves.double().sin()).expand(n, c, height, width).clone()


def transposed(cls: type[TransposeConv2d], **fields: Any) -> Sample:
    return Sample(cls(**fields), [(2, 4, 4, 3)])


CONVOLUTIONS = [
    conv(out_channels=3, kernel_size=3, padding=1),
    conv(out_channels=4, kernel_size=(2, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    conv(out_channels=6, kernel_size=3, stride=2, groups=2, bias=False),
    conv(out_channels=4, kernel_size=2, groups=4),
    conv(out_channels=2, kernel_size=(4, 3), padding="same"),
    conv(out_channels=2, kernel_size=3, padding="valid", dilation=2),
    conv((2, 4, 7, 5), out_channels=2, kernel_size=1, stride=3),
    conv(out_channels=2, kernel_size=3, padding=(1, 2), padding_mode="reflect"),
    conv(out_channels=2, kernel_size=(2, 3), padding="same", padding_mode="replicate"),
]
SIGNALS = [
    Sample(Conv1d(out_channels=4, kernel_size=3, stride=2, dilation=2, groups=2), [SIGNAL]),
    Sample(Conv1d(out_channels=2, kernel_size=4, padding="same", padding_mode="reflect"), [SIGNAL]),
]
VOLUMES = [
    Sample(
        Conv3d(
            out_channels=2, kernel_size=(3, 1, 2), stride=(1, 2, 1), padding=(1, 0, 1), groups=2
        ),
        [VOLUME],
    ),
]
TRANSPOSED_VOLUMES = [
    Sample(
        TransposeConv3d(
            out_channels=2,
            kernel_size=(1, 2, 3),
            stride=(2, 1, 2),
            padding=(0, 0, 1),
            output_padding=(1, 0, 1),
        ),
        [(1, 2, 2, 2, 3)],
    ),
]
WEIGHTED = [Sample(BCEWithLogits(pos_weight=3.0), [(3, 5), torch.rand(3, 5)])]
LONG = torch.linspace(0, 1, 289).reshape(1, 1, 17, 17)  # a place in it needs more than a byte
LARGEST = [
    Sample(MaxPool1d(kernel_size=3, stride=2, padding=1, ceil_mode=True), [(2, 3, 8)]),
]
VOLUME_MEANS = [
    Sample(AvgPool3d(kernel_size=2, padding=1, ceil_mode=True, count_include_pad=False), [VOLUME]),
]
ADAPTIVE = [
    Sample(AdaptiveMaxPool2d(output_size=(4, 7)), [(2, 3, 6, 5)]),
    Sample(AdaptiveMaxPool2d(output_size=(None, 2)), [(2, 3, 6, 5)]),
    Sample(AdaptiveMaxPool2d(output_size=1), [torch.linspace(0, 1, 300).reshape(1, 1, 300, 1)]),
]


DEPTHWISE = [
    Sample(DepthwiseConv2d(kernel_size=3, padding=1), [IMAGE]),
    Sample(DepthwiseConv2d(kernel_size=(2, 3), stride=(2, 1), dilation=(1, 2)), [(2, 3, 7, 5)]),
    Sample(DepthwiseConv2d(kernel_size=(4, 3), padding="same", bias=False), [IMAGE]),
]


def transposes(cls: type[TransposeConv2d]) -> list[Sample]:
    return [
        transposed(cls, out_channels=3, kernel_size=2, stride=2),
        transposed(cls, out_channels=4, kernel_size=3, stride=2, padding=1, output_padding=1),
        transposed(cls, out_channels=4, kernel_size=(2, 3), stride=(3, 1), groups=2, bias=False),
        transposed(cls, out_channels=2, kernel_size=2, dilation=2, output_padding=(1, 0)),
    ]


NORMS = [
    Sample(BatchNorm2d(), [IMAGE]),
    Sample(BatchNorm2d(affine=False, eps=0.1, momentum=1.0), [(3, 2, 5, 3)]),
    Sample(BatchNorm2d(num_features=3, momentum=0.0), [(1, 3, 3, 2)]),
]
LEAKY = [Sample(LeakyReLU(negative_slope=slope), [IMAGE]) for slope in (0.0, 0.3, 2.0)]
PRELUS = [
    Sample(PReLU(num_parameters=4), [IMAGE]),
    Sample(PReLU(num_parameters=None, init=-0.5), [(2, 3)]),
    Sample(PReLU(init=0.0), [()]),
    Sample(PReLU(), [(5,)]),
]
GELUS = [Sample(GELU(approximate="tanh"), [IMAGE]), Sample(GELU(), [()])]
SOFTPLUS = [Sample(Softplus(beta=3.0, threshold=2.6), [IMAGE]), Sample(Softplus(), [(7,)])]
ELUS = [Sample(ELU(alpha=alpha), [IMAGE]) for alpha in (0.4, 1.0, 3.0)]
RANGES = [Sample(Hardtanh(min_val=a, max_val=b), [IMAGE]) for a, b in ((-0.5, 0.75), (0.125, 4.0))]
LINEARS = [
    Sample(Linear(out_features=3), [(4,)]),
    Sample(Linear(in_features=4, out_features=5, bias=False), [(3, 4)]),
    Sample(Linear(out_features=1), [(2, 3, 5, 4)]),
]
GROUP_NORMS = [
    Sample(GroupNorm(num_groups=2, eps=0.1), [IMAGE]),
    Sample(GroupNorm(num_groups=1, num_channels=3, affine=False), [(1, 3, 3, 2)]),
]
LAYER_NORMS = [
    Sample(LayerNorm2d(eps=0.1), [IMAGE]),
    Sample(LayerNorm2d(num_channels=3, bias=False), [(3, 3, 2, 5)]),
    Sample(LayerNorm2d(affine=False), [IMAGE]),
]
MAXIMA = [
    Sample(MaxPool2d(kernel_size=2), [IMAGE]),
    Sample(MaxPool2d(kernel_size=3, stride=1, padding=1), [IMAGE]),
    Sample(MaxPool2d(kernel_size=(2, 3), stride=(3, 2), dilation=(3, 1)), [(2, 3, 7, 5)]),
]
MEANS = [
    Sample(AvgPool2d(kernel_size=2), [IMAGE]),
    Sample(AvgPool2d(kernel_size=3, stride=(1, 4), padding=(1, 0)), [IMAGE]),
    Sample(AvgPool2d(kernel_size=3, stride=2, padding=1, count_include_pad=False), [IMAGE]),
    Sample(AvgPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True), [IMAGE]),
]
BILINEAR = [
    Sample(BilinearUpsampling(scale_factor=(2, 1.7)), [(2, 3, 4, 5)]),
    Sample(BilinearUpsampling(scale_factor=0.6), [IMAGE]),
    Sample(BilinearUpsampling(scale_factor=(3, 2), align_corners=True), [(2, 2, 3, 1)]),
]
SHUFFLES = [Sample(PixelShuffle(upscale_factor=r), [(2, 9, 3, 4)]) for r in (1, 3)]
UNSHUFFLES = [Sample(PixelUnshuffle(downscale_factor=r), [(2, 3, 9, 3)]) for r in (1, 3)]
MASK = (torch.arange(96) % 7 == 0).float().reshape(2, 3, 4, 4)
WRONG_CHANNELS = Conv2d(in_channels=3, out_channels=2, kernel_size=1)
ALWAYS = {"random_replay": "nothing is dropped"}
SAMPLES: dict[str, list[Sample]] = {
    "conv2d": [
        *CONVOLUTIONS,
        Sample(WRONG_CHANNELS, [IMAGE], raises=GraphError),
        Sample(Conv2d(out_channels=2, kernel_size=9), [IMAGE], raises=GraphError),
    ],
    "aten/conv2d": CONVOLUTIONS,
    "conv1d": [
        *SIGNALS,
        Sample(Conv1d(out_channels=2, kernel_size=3), [IMAGE], raises=GraphError),
        Sample(
            Conv1d(out_channels=2, kernel_size=3, padding=7, padding_mode="reflect"),
            [SIGNAL],
            raises=GraphError,
        ),
        Sample(
            Conv1d(out_channels=2, kernel_size=3, padding=8, padding_mode="circular"),
            [SIGNAL],
            raises=GraphError,
        ),
    ],
    "aten/conv1d": SIGNALS,
    "conv3d": [*VOLUMES, Sample(Conv3d(out_channels=2, kernel_size=9), [VOLUME], GraphError)],
    "aten/conv3d": VOLUMES,
    "transpose_conv3d": [
        *TRANSPOSED_VOLUMES,
        Sample(TransposeConv3d(out_channels=2, kernel_size=1, padding=4), [VOLUME], GraphError),
    ],
    "aten/transpose_conv3d": TRANSPOSED_VOLUMES,
    "max_pool1d": [*LARGEST, Sample(MaxPool1d(kernel_size=2), [IMAGE], raises=GraphError)],
    "aten/max_pool1d": LARGEST,
    "avg_pool3d": [*VOLUME_MEANS, Sample(AvgPool3d(kernel_size=5), [VOLUME], raises=GraphError)],
    "aten/avg_pool3d": VOLUME_MEANS,
    "adaptive_max_pool2d": [
        *ADAPTIVE,
        Sample(AdaptiveMaxPool2d(output_size=2), [(1, 2, 0, 3)], raises=GraphError),
    ],
    "aten/adaptive_max_pool2d": ADAPTIVE,
    "adaptive_avg_pool2d": [Sample(AdaptiveAvgPool2d(output_size=(4, 7)), [(2, 3, 6, 5)])],
    "circular_pad2d": [
        Sample(CircularPad2d(padding=(1, 3, 0, 2)), [(2, 3, 5, 4)]),
        Sample(CircularPad2d(padding=7), [IMAGE], raises=GraphError),
    ],
    "constant_pad1d": [Sample(ConstantPad1d(padding=(2, 1), value=-1.5), [SIGNAL])],
    "instance_norm": [
        Sample(InstanceNorm(affine=True, eps=0.1), [SIGNAL]),
        Sample(InstanceNorm(num_features=3), [IMAGE], raises=GraphError),
        Sample(InstanceNorm(), [(2, 4)], raises=GraphError),
    ],
    "batch_norm1d": [
        Sample(BatchNorm1d(), [(3, 4)], skip={"expanded": "equal values leave rounding errors"}),
        Sample(BatchNorm1d(), [IMAGE], raises=GraphError),
    ],
    "trilinear_upsampling": [
        Sample(TrilinearUpsampling(scale_factor=(1.7, 0.6, 2), align_corners=True), [VOLUME]),
    ],
    "depthwise_conv2d": [
        *DEPTHWISE,
        Sample(DepthwiseConv2d(kernel_size=9), [IMAGE], raises=GraphError),
    ],
    "aten/depthwise_conv2d": DEPTHWISE,
    "transpose_conv2d": [
        *transposes(TransposeConv2d),
        Sample(TransposeConv2d(out_channels=2, kernel_size=1, padding=4), [IMAGE], GraphError),
    ],
    "aten/transpose_conv2d": transposes(TransposeConv2d),
    "upsampling": transposes(TransposeConv2d),
    "nearest_upsampling": [
        Sample(NearestUpsampling(scale_factor=(3, 2)), [IMAGE]),
        Sample(NearestUpsampling(scale_factor=1), [IMAGE]),
    ],
    "bilinear_upsampling": [
        *BILINEAR,
        Sample(BilinearUpsampling(scale_factor=0.1), [IMAGE], raises=GraphError),
    ],
    "aten/bilinear_upsampling": BILINEAR,
    "pixel_shuffle": [
        *SHUFFLES,
        Sample(PixelShuffle(upscale_factor=3), [IMAGE], raises=GraphError),
    ],
    "aten/pixel_shuffle": SHUFFLES,
    "pixel_unshuffle": [
        *UNSHUFFLES,
        Sample(PixelUnshuffle(downscale_factor=4), [IMAGE], raises=GraphError),
    ],
    "aten/pixel_unshuffle": UNSHUFFLES,
    "max_pool2d": [
        *MAXIMA,
        Sample(MaxPool2d(kernel_size=2, padding=1, dilation=2), [IMAGE]),
        Sample(MaxPool2d(kernel_size=17), [LONG]),
        Sample(MaxPool2d(kernel_size=3, dilation=3), [IMAGE], raises=GraphError),
    ],
    "aten/max_pool2d": MAXIMA,
    "avg_pool2d": [*MEANS, Sample(AvgPool2d(kernel_size=7), [IMAGE], raises=GraphError)],
    "aten/avg_pool2d": MEANS,
    "global_avg_pool": [
        Sample(GlobalAvgPool(), [(3, 2, 1, 5)]),
        Sample(GlobalAvgPool(), [(2, 4)], raises=GraphError),
    ],
    "reflection_pad2d": [
        Sample(ReflectionPad2d(padding=(1, 3, 0, 2)), [(2, 3, 5, 4)]),
        Sample(ReflectionPad2d(padding=(0, 3, 1, 1)), [(2, 3, 2, 5)]),  # more than the height
        Sample(ReflectionPad2d(padding=6), [IMAGE], raises=GraphError),
        Sample(ReflectionPad2d(padding=(0, 0, 6, 0)), [IMAGE], raises=GraphError),
    ],
    "replication_pad2d": [
        Sample(ReplicationPad2d(padding=(1, 3, 0, 2)), [(2, 3, 5, 4)]),
        Sample(ReplicationPad2d(padding=1), [(4, 6)], raises=GraphError),
    ],
    "group_norm": [
        *GROUP_NORMS,
        Sample(GroupNorm(num_groups=3), [IMAGE], raises=GraphError),
    ],
    "aten/group_norm": GROUP_NORMS,
    "layer_norm2d": [
        *LAYER_NORMS,
        Sample(LayerNorm2d(bias=False, subtract_mean=False), [IMAGE]),
        Sample(LayerNorm2d(num_channels=3), [IMAGE], raises=GraphError),
    ],
    "aten/layer_norm2d": LAYER_NORMS,
    "layer_norm": [
        Sample(LayerNorm(normalized_shape=(3, 4), eps=0.1), [(2, 3, 4)]),
        Sample(LayerNorm(normalized_shape=4, bias=False), [(2, 3, 4)]),
        Sample(LayerNorm(normalized_shape=5), [(2, 4)], raises=GraphError),
    ],
    "rms_norm": [
        Sample(RMSNorm(normalized_shape=(3, 4), eps=0.1), [(2, 3, 4)]),
        Sample(RMSNorm(normalized_shape=5), [(2, 4)], raises=GraphError),
    ],
    "simplified_channel_attention": [
        Sample(SimplifiedChannelAttention(), [(3, 2, 1, 5)]),
        Sample(SimplifiedChannelAttention(), [(2, 4)], raises=GraphError),
    ],
    "transposed_attention": [
        Sample(TransposedAttention(num_heads=3), [(2, 18, 3, 2)]),
        Sample(TransposedAttention(num_heads=3), [IMAGE], raises=GraphError),
    ],
    "batch_norm2d": [
        *NORMS,
        Sample(
            BatchNorm2d(), [(1, 3, 1, 1)], skip={"parameter_gradients": "one value less itself"}
        ),
        Sample(BatchNorm2d(num_features=3), [IMAGE], raises=GraphError),
        Sample(BatchNorm2d(), [(2, 4)], raises=GraphError),
    ],
    "aten/batch_norm2d": NORMS,
    "add": [
        Sample(Add(), [(2, 3)]),
        Sample(Add(), [IMAGE] * 3),
        Sample(Add(), [(2, 3), (2, 4)], raises=GraphError),
    ],
    "concat": [
        Sample(Concat(), [IMAGE, (2, 1, 6, 6)]),
        Sample(Concat(dim=-1), [IMAGE, (2, 4, 6, 2), IMAGE]),
        Sample(Concat(dim=0), [(2, 3), (1, 3)]),
        Sample(Concat(), [IMAGE, (2, 4, 5, 6)], raises=GraphError),
    ],
    "elu": ELUS,
    "aten/elu": ELUS,
    "hardtanh": RANGES,
    "aten/hardtanh": RANGES,
    "trained_tensor": [
        Sample(TrainedTensor(shape=(2, 3)), [IMAGE]),
        Sample(TrainedTensor(shape=()), [(4,)]),
    ],
    "fixed_tensor": [Sample(FixedTensor(shape=(2, 3), init=0.5), [IMAGE])],
    "multiply": [
        Sample(Multiply(), [IMAGE, (2, 4, 1, 1)]),
        Sample(Multiply(), [(2, 1, 6, 6), (1, 4, 6, 1)]),
        Sample(Multiply(), [(5,), (1,)]),
        Sample(Multiply(), [IMAGE, (6,)]),
        Sample(Multiply(), [IMAGE, (3, 1, 1)], raises=GraphError),
        Sample(Multiply(), [IMAGE, (2, 4, 2, 6)], raises=GraphError),
    ],
    "matmul": [
        Sample(Matmul(), [(1, 2, 3), (4, 3, 2)]),
        Sample(Matmul(), [(2, 3), (3, 1)]),
        Sample(Matmul(), [(2, 3), (2, 3)], raises=GraphError),
        Sample(Matmul(), [(2, 2, 3), (3, 3, 2)], raises=GraphError),
        Sample(Matmul(), [(3,), (3, 2)], raises=GraphError),
    ],
    "broadcast_add": [
        Sample(BroadcastAdd(), [IMAGE, (2, 4, 1, 1)]),
        Sample(BroadcastAdd(), [(2, 1, 6, 6), (1, 4, 6, 1)]),
        Sample(BroadcastAdd(), [(3, 4), (2, 3, 4)]),
        Sample(BroadcastAdd(), [IMAGE, (3, 1, 1)], raises=GraphError),
        Sample(BroadcastAdd(), [IMAGE, (2, 4, 2, 6)], raises=GraphError),
    ],
    "add_scalar": [Sample(AddScalar(value=0.5), [(3,)]), Sample(AddScalar(value=-3.0), [IMAGE])],
    "slice": [
        Sample(Slice(start=1, end=-1), [IMAGE]),
        Sample(Slice(dim=-2, start=-3, step=2), [IMAGE]),
        Sample(Slice(dim=0, end=9), [(3,)]),
        Sample(Slice(dim=2, start=1), [IMAGE]),
        Sample(Slice(start=4), [IMAGE], raises=GraphError),
        Sample(Slice(dim=2), [(2, 4)], raises=GraphError),
    ],
    "subtract": [
        Sample(Subtract(), [IMAGE, (2, 4, 1, 1)]),
        Sample(Subtract(), [(2, 1, 6, 6), (1, 4, 6, 1)]),
        Sample(Subtract(), [(5,), (1,)]),
        Sample(Subtract(), [(4, 1, 1), IMAGE]),
        Sample(Subtract(), [IMAGE, (3, 1, 1)], raises=GraphError),
        Sample(Subtract(), [IMAGE, (2, 4, 2, 6)], raises=GraphError),
    ],
    "split": [
        Sample(Split(size=3), [IMAGE]),
        Sample(Split(dim=-1), [IMAGE]),
        Sample(Split(size=1, dim=0), [(3, 5)]),
        Sample(Split(size=4), [IMAGE], raises=GraphError),
        Sample(Split(), [(2, 3)], raises=GraphError),
        Sample(Split(dim=2), [(2, 4)], raises=GraphError),
    ],
    "simple_gate": [
        Sample(SimpleGate(), [(2, 6)]),
        Sample(SimpleGate(), [(2, 3, 4, 4)], raises=GraphError),
        Sample(SimpleGate(), [(4,)], raises=GraphError),
    ],
    "leaky_relu": LEAKY,
    "aten/leaky_relu": LEAKY,
    "binary_cross_entropy_with_logits": [
        *WEIGHTED,
        Sample(BCEWithLogits(), [(3, 5), (3, 4)], raises=GraphError),
    ],
    "aten/binary_cross_entropy_with_logits": WEIGHTED,
    "aten/prelu": PRELUS,
    "prelu": [
        *PRELUS,
        Sample(PReLU(num_parameters=3), [IMAGE], raises=GraphError),
    ],
    "gelu": GELUS,
    "aten/gelu": GELUS,
    "softplus": [*SOFTPLUS, Sample(Softplus(threshold=1e6), [IMAGE])],
    "aten/softplus": SOFTPLUS,
    "linear": [
        *LINEARS,
        Sample(Linear(in_features=3, out_features=2), [(2, 4)], raises=GraphError),
        Sample(Linear(out_features=2), [()], raises=GraphError),
    ],
    "aten/linear": LINEARS,
    "rescale": [Sample(Rescale(factor=0.0), [(3,)]), Sample(Rescale(factor=-3.0), [IMAGE])],
    "layer_scale": [
        Sample(LayerScale(init=0.0), [(2, 3)]),
        Sample(LayerScale(init=-2.0), [(1, 3, 5)]),
        Sample(LayerScale(), [(4,)], raises=GraphError),
    ],
    "dropout": [Sample(Dropout(p=0.2), [IMAGE]), Sample(Dropout(p=0.0), [(3,)], skip=ALWAYS)],
    "mse": [
        Sample(MSE(), [(3, 5), (3, 5)]),
        Sample(MSE(), [torch.rand(2, 3), torch.rand(2, 3)]),
        Sample(MSE(), [(3, 5), (3, 4)], raises=GraphError),
    ],
    "l1": [Sample(L1(), [(3, 5), (3, 5)]), Sample(L1(), [(3, 5), (3, 4)], raises=GraphError)],
    "huber": [Sample(Huber(delta=delta), [IMAGE, IMAGE]) for delta in (0.3, 5.0)],
    "charbonnier": [Sample(Charbonnier(eps=eps), [(3, 5), (3, 5)]) for eps in (0.01, 2.0)],
    "psnr": [
        Sample(PSNR(eps=0.1), [(3, 5), (3, 5)]),
        Sample(PSNR(), [(5,), (5,)], raises=GraphError),
    ],
    "ssim": [
        Sample(SSIM(window_size=3, data_range=4.0), [IMAGE, IMAGE]),
        Sample(SSIM(window_size=3), [(1, 1, 3, 3)] * 2),
        Sample(SSIM(), [(1, 1, 12, 10)] * 2, raises=GraphError),
    ],
    "ms_ssim": [
        Sample(MSSSIM(weights=(0.2, 0.8)), [smooth(1, 1, 22, 24), smooth(1, 1, 22, 24) ** 2]),
        Sample(MSSSIM(weights=(0.2, 0.8)), [smooth(1, 1, 22, 24), 1 - smooth(1, 1, 22, 24)]),
        Sample(MSSSIM(), [(1, 1, 200, 175)] * 2, raises=GraphError),
    ],
    "masked_mse": [
        Sample(MaskedMSE(), [torch.rand(3, 5), torch.rand(3, 5), torch.rand(3, 5)]),
        Sample(MaskedMSE(), [torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), MASK]),
        Sample(MaskedMSE(), [(3, 5), (3, 5), (3, 4)], raises=GraphError),
        Sample(MaskedMSE(), [(3, 5), (3, 4), (3, 5)], raises=GraphError),
    ],
}


# A check that concerns no sample guards nothing: these concern every layer.
UNIVERSAL = {"runs", "docstring", "forward_pure", "forward_observed", "float32"}
INDUCTOR = [  # Inductor takes seconds for each: one of each kind of arithmetic
    "conv2d",
    "transpose_conv2d",
    "prelu",
    "group_norm",
    "bilinear_upsampling",
    "transposed_attention",
    "concat",
    "ssim",
    "aten/max_pool2d",
    "aten/batch_norm2d",
]


# One implementation serves any number of axes: Dynamo, which takes seconds, traces it for two axes only.
OTHER_AXES = {
    name
    for name in ENTRIES
    if name.endswith(("1d", "3d")) or "linear_" in name.replace("bilinear", "")
}
TRACED = [check for check in CHECKS if check.name != "compiles"]
EXPECTED = [check for check in CHECKS if check.name in ("runs", "expected_values")]


def passed(report: Report) -> set[str]:
    return {row.check for row in report.rows if row.status is Status.PASSED}


@pytest.mark.parametrize("name", ENTRIES)
def test_builtin_passes_all_checks_on_generated_samples(name: str) -> None:
    checks = TRACED if name in OTHER_AXES else CHECKS
    report = assert_checks_pass(ENTRIES[name].value, registry=REGISTRY, checks=checks)
    assert passed(report) >= UNIVERSAL


@pytest.mark.parametrize("name", SAMPLES)
def test_builtin_passes_checks_on_stated_samples(name: str) -> None:
    # Dynamo has traced the layer on its generated samples.
    samples = with_expected(name, SAMPLES[name], REGISTRY)
    report = assert_checks_pass(ENTRIES[name].value, samples, registry=REGISTRY, checks=TRACED)
    assert passed(report) >= UNIVERSAL
    assert ("expected_values" in passed(report)) is (name not in KERNELS)


@pytest.mark.parametrize("name", [name for name in REFERENCES if name not in SAMPLES])
def test_builtin_computes_what_its_reference_does(name: str) -> None:
    samples = with_expected(name, (), REGISTRY)
    report = assert_checks_pass(ENTRIES[name].value, samples, registry=REGISTRY, checks=EXPECTED)
    assert passed(report) >= {"expected_values"}


def test_each_layer_and_loss_has_a_reference() -> None:
    own = {REGISTRY.name_of(e.value) for e in ENTRIES.values() if not issubclass(e.value, Kernel)}
    assert set(REFERENCES) == own


@pytest.mark.slow
@pytest.mark.parametrize("name", INDUCTOR)
def test_builtin_compiles_with_inductor(name: str) -> None:
    (inductor,) = (check for check in CHECKS if check.name == "inductor")
    row = judge(inductor, cases_for(ENTRIES[name].value, registry=REGISTRY)[:1])
    assert row.status is Status.PASSED, row.message


def test_samples_above_belong_to_layers_that_exist() -> None:
    assert set(SAMPLES) <= set(ENTRIES)

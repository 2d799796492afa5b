"""The built-in plugin: layers, losses, kernels, optimizers and schedules, by the same hooks as everyone's."""

from __future__ import annotations

from graphnet.builtin.kernels import multi_tensor
from graphnet.builtin.kernels.aten import activation, hard, linear, norm, pool, resample
from graphnet.builtin.kernels.aten import convolution as aten
from graphnet.builtin.kernels.patch import products as patch
from graphnet.builtin.layers.activation import LeakyReLU, PReLU, ReLU, Sigmoid, Tanh
from graphnet.builtin.layers.attention import SimplifiedChannelAttention, TransposedAttention
from graphnet.builtin.layers.conv import Conv2d, TransposeConv2d
from graphnet.builtin.layers.depthwise import DepthwiseConv2d
from graphnet.builtin.layers.dropout import Dropout
from graphnet.builtin.layers.group_norm import GroupNorm
from graphnet.builtin.layers.hard import ELU, HardSigmoid, HardSwish, HardTanh, ReLU6
from graphnet.builtin.layers.layer_norm import LayerNorm2d
from graphnet.builtin.layers.linear import Linear
from graphnet.builtin.layers.merge import Add, Concat, Multiply, Subtract
from graphnet.builtin.layers.norm import BatchNorm2d
from graphnet.builtin.layers.pad import ReflectionPad2d, ReplicationPad2d
from graphnet.builtin.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.builtin.layers.pool import AvgPool2d, GlobalAvgPool, MaxPool2d
from graphnet.builtin.layers.scale import LayerScale, Rescale
from graphnet.builtin.layers.smooth import GELU, SiLU, Softplus
from graphnet.builtin.layers.source import Buffer, Parameter
from graphnet.builtin.layers.split import SimpleGate, Split
from graphnet.builtin.layers.upsample import BilinearUpsampling, NearestUpsampling
from graphnet.builtin.losses.masked import MaskedMSE
from graphnet.builtin.losses.pixel import L1, MSE, PSNR, Charbonnier, Huber
from graphnet.builtin.losses.ssim import MSSSIM, SSIM
from graphnet.builtin.optimizers.adam import Adam, AdamW
from graphnet.builtin.optimizers.muon import Muon
from graphnet.builtin.optimizers.sgd import SGD
from graphnet.builtin.schedules import ConstantSchedule, Cosine, OneCycle, WarmUp
from graphnet.sdk import Register, hookimpl


@hookimpl
def graphnet_layers(register: Register) -> None:
    register("conv2d", Conv2d)
    register("depthwise_conv2d", DepthwiseConv2d)
    register("transpose_conv2d", TransposeConv2d)
    register("upsampling", TransposeConv2d)  # the paper's word for it
    register("nearest_upsampling", NearestUpsampling)
    register("bilinear_upsampling", BilinearUpsampling)
    register("pixel_shuffle", PixelShuffle)
    register("pixel_unshuffle", PixelUnshuffle)
    register("max_pool2d", MaxPool2d)
    register("avg_pool2d", AvgPool2d)
    register("global_avg_pool", GlobalAvgPool)
    register("reflection_pad2d", ReflectionPad2d)
    register("replication_pad2d", ReplicationPad2d)
    register("batch_norm2d", BatchNorm2d)
    register("linear", Linear)
    register("group_norm", GroupNorm)
    register("layer_norm2d", LayerNorm2d)
    register("simplified_channel_attention", SimplifiedChannelAttention)
    register("transposed_attention", TransposedAttention)
    register("relu", ReLU)
    register("leaky_relu", LeakyReLU)
    register("prelu", PReLU)
    register("sigmoid", Sigmoid)
    register("tanh", Tanh)
    register("gelu", GELU)
    register("silu", SiLU)
    register("softplus", Softplus)
    register("elu", ELU)
    register("hardtanh", HardTanh)
    register("relu6", ReLU6)
    register("hardsigmoid", HardSigmoid)
    register("hardswish", HardSwish)
    register("add", Add)
    register("multiply", Multiply)
    register("subtract", Subtract)
    register("concat", Concat)
    register("split", Split)
    register("simple_gate", SimpleGate)
    register("rescale", Rescale)
    register("layer_scale", LayerScale)
    register("dropout", Dropout)
    register("parameter", Parameter)
    register("buffer", Buffer)


@hookimpl
def graphnet_losses(register: Register) -> None:
    register("mse", MSE)
    register("l1", L1)
    register("huber", Huber)
    register("charbonnier", Charbonnier)
    register("psnr", PSNR)
    register("ssim", SSIM)
    register("ms_ssim", MSSSIM)
    register("masked_mse", MaskedMSE)


@hookimpl
def graphnet_kernels(register: Register) -> None:
    # of those that fit, the first is taken
    for module in (patch, aten, norm, activation, hard, linear, pool, resample, multi_tensor):
        for name, kernel in module.KERNELS.items():
            register(name, kernel)


@hookimpl
def graphnet_optimizers(register: Register) -> None:
    register("sgd", SGD)
    register("adam", Adam)
    register("adamw", AdamW)
    register("muon", Muon)


@hookimpl
def graphnet_schedules(register: Register) -> None:
    register("constant", ConstantSchedule)
    register("warm_up", WarmUp)
    register("cosine", Cosine)
    register("one_cycle", OneCycle)

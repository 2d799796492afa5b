"""The built-in plugin: layers, kernels, optimizers, executors, by the same hooks as everyone's."""

from __future__ import annotations

from graphnet.executors.auto import Auto
from graphnet.executors.cudagraph import CUDAGraph
from graphnet.executors.eager import Eager
from graphnet.executors.inductor import Inductor
from graphnet.executors.reference import Reference
from graphnet.hookspecs import Register, hookimpl
from graphnet.kernels import (
    activation,
    aten,
    gemm,
    linear,
    multi_tensor,
    norm,
    patch,
    pool,
    resample,
    strided,
    winograd,
)
from graphnet.layers.activation import LeakyReLU, PReLU, ReLU, Sigmoid, Tanh
from graphnet.layers.attention import SimplifiedChannelAttention, TransposedAttention
from graphnet.layers.conv import Conv2d, TransposeConv2d, Upsampling
from graphnet.layers.depthwise import DepthwiseConv2d
from graphnet.layers.dropout import Dropout
from graphnet.layers.group_norm import GroupNorm
from graphnet.layers.layer_norm import LayerNorm2d
from graphnet.layers.linear import Linear
from graphnet.layers.loss import L1, MSE, PSNR, Charbonnier, Huber
from graphnet.layers.masked_loss import MaskedMSE
from graphnet.layers.merge import Add, Concat, Multiply, Subtract
from graphnet.layers.norm import BatchNorm2d
from graphnet.layers.pad import ReflectionPad2d, ReplicationPad2d
from graphnet.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.layers.pool import AvgPool2d, GlobalAvgPool, MaxPool2d
from graphnet.layers.scale import LayerScale, Rescale
from graphnet.layers.similarity import MSSSIM, SSIM
from graphnet.layers.smooth import GELU, SiLU, Softplus
from graphnet.layers.split import SimpleGate, Split
from graphnet.layers.upsample import BilinearUpsampling, NearestUpsampling
from graphnet.optim import SGD, Adam, AdamW, ConstantSchedule, Cosine, OneCycle, WarmUp
from graphnet.optimizers.muon import Muon


@hookimpl
def graphnet_layers(register: Register) -> None:
    register("conv2d", Conv2d)
    register("depthwise_conv2d", DepthwiseConv2d)
    register("transpose_conv2d", TransposeConv2d)
    register("upsampling", Upsampling)
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
    register("add", Add)
    register("multiply", Multiply)
    register("subtract", Subtract)
    register("concat", Concat)
    register("split", Split)
    register("simple_gate", SimpleGate)
    register("rescale", Rescale)
    register("layer_scale", LayerScale)
    register("dropout", Dropout)


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
    first = (winograd, gemm, patch, strided)  # the first that fits is taken
    for module in (*first, aten, norm, activation, linear, pool, resample, multi_tensor):
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


@hookimpl
def graphnet_executors(register: Register) -> None:
    register("eager", Eager)
    register("reference", Reference)
    register("inductor", Inductor)
    register("cudagraph", CUDAGraph)
    register("auto", Auto)

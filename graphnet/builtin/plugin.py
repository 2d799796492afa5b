"""The built-in plugin: layers, losses, kernels, optimizers and schedules, by the public hooks."""

from __future__ import annotations

from graphnet.builtin.kernels import multi_tensor, onednn
from graphnet.builtin.kernels.aten import (
    activation,
    classes,
    hard,
    linear,
    norm,
    resample,
    sequence,
)
from graphnet.builtin.kernels.aten import convolution as aten
from graphnet.builtin.kernels.aten import pool as aten_pool
from graphnet.builtin.kernels.patch import products as patch
from graphnet.builtin.layers import adaptive, conv, depthwise, pad, pool, transpose_conv, upsample
from graphnet.builtin.layers.activation import LeakyReLU, PReLU, ReLU, Sigmoid, Tanh
from graphnet.builtin.layers.attention import SimplifiedChannelAttention, TransposedAttention
from graphnet.builtin.layers.axes import Flatten, Mean, Permute, Reshape
from graphnet.builtin.layers.dot_attention import Attention
from graphnet.builtin.layers.dropout import Dropout
from graphnet.builtin.layers.embedding import Embedding, PositionEmbedding
from graphnet.builtin.layers.feature_norm import LayerNorm, RMSNorm
from graphnet.builtin.layers.group_norm import GroupNorm, InstanceNorm
from graphnet.builtin.layers.hard import ELU, Hardsigmoid, Hardswish, Hardtanh, ReLU6
from graphnet.builtin.layers.layer_norm import LayerNorm1d, LayerNorm2d, LayerNorm3d
from graphnet.builtin.layers.linear import Linear
from graphnet.builtin.layers.merge import Add, BroadcastAdd, Concat, Multiply, Subtract
from graphnet.builtin.layers.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from graphnet.builtin.layers.pixels import PixelShuffle, PixelUnshuffle
from graphnet.builtin.layers.product import Matmul
from graphnet.builtin.layers.recurrent import GRU, LSTM
from graphnet.builtin.layers.scale import AddScalar, LayerScale, Rescale
from graphnet.builtin.layers.smooth import GELU, SiLU, Softplus
from graphnet.builtin.layers.softmax import LogSoftmax, Softmax
from graphnet.builtin.layers.source import FixedTensor, TrainedTensor
from graphnet.builtin.layers.split import SimpleGate, Slice, Split
from graphnet.builtin.losses.classes import NLL, BCEWithLogits, CrossEntropy
from graphnet.builtin.losses.masked import MaskedMSE
from graphnet.builtin.losses.pixel import L1, MSE, PSNR, Charbonnier, Huber
from graphnet.builtin.losses.ssim import MSSSIM, SSIM
from graphnet.builtin.metrics import Accuracy
from graphnet.builtin.operators import images, sequences, tensors
from graphnet.builtin.optimizers.adam import Adam, AdamW
from graphnet.builtin.optimizers.muon import Muon
from graphnet.builtin.optimizers.sgd import SGD
from graphnet.builtin.schedules import ConstantSchedule, Cosine, OneCycle, WarmUp
from graphnet.sdk import Register, hookimpl


@hookimpl
def graphnet_layers(register: Register) -> None:
    register("conv1d", conv.Conv1d)
    register("conv2d", conv.Conv2d)
    register("conv3d", conv.Conv3d)
    register("depthwise_conv1d", depthwise.DepthwiseConv1d)
    register("depthwise_conv2d", depthwise.DepthwiseConv2d)
    register("depthwise_conv3d", depthwise.DepthwiseConv3d)
    register("transpose_conv1d", transpose_conv.TransposeConv1d)
    register("transpose_conv2d", transpose_conv.TransposeConv2d)
    register("transpose_conv3d", transpose_conv.TransposeConv3d)
    register("upsampling", transpose_conv.TransposeConv2d)  # the paper's word for it
    register("nearest_upsampling1d", upsample.NearestUpsampling1d)
    register("nearest_upsampling", upsample.NearestUpsampling)
    register("nearest_upsampling3d", upsample.NearestUpsampling3d)
    register("linear_upsampling", upsample.LinearUpsampling)
    register("bilinear_upsampling", upsample.BilinearUpsampling)
    register("trilinear_upsampling", upsample.TrilinearUpsampling)
    register("pixel_shuffle", PixelShuffle)
    register("pixel_unshuffle", PixelUnshuffle)
    register("max_pool1d", pool.MaxPool1d)
    register("max_pool2d", pool.MaxPool2d)
    register("max_pool3d", pool.MaxPool3d)
    register("avg_pool1d", pool.AvgPool1d)
    register("avg_pool2d", pool.AvgPool2d)
    register("avg_pool3d", pool.AvgPool3d)
    register("global_avg_pool", pool.GlobalAvgPool)
    register("adaptive_avg_pool1d", adaptive.AdaptiveAvgPool1d)
    register("adaptive_avg_pool2d", adaptive.AdaptiveAvgPool2d)
    register("adaptive_avg_pool3d", adaptive.AdaptiveAvgPool3d)
    register("adaptive_max_pool1d", adaptive.AdaptiveMaxPool1d)
    register("adaptive_max_pool2d", adaptive.AdaptiveMaxPool2d)
    register("adaptive_max_pool3d", adaptive.AdaptiveMaxPool3d)
    register("constant_pad1d", pad.ConstantPad1d)
    register("constant_pad2d", pad.ConstantPad2d)
    register("constant_pad3d", pad.ConstantPad3d)
    register("reflection_pad1d", pad.ReflectionPad1d)
    register("reflection_pad2d", pad.ReflectionPad2d)
    register("reflection_pad3d", pad.ReflectionPad3d)
    register("replication_pad1d", pad.ReplicationPad1d)
    register("replication_pad2d", pad.ReplicationPad2d)
    register("replication_pad3d", pad.ReplicationPad3d)
    register("circular_pad1d", pad.CircularPad1d)
    register("circular_pad2d", pad.CircularPad2d)
    register("circular_pad3d", pad.CircularPad3d)
    register("batch_norm1d", BatchNorm1d)
    register("batch_norm2d", BatchNorm2d)
    register("batch_norm3d", BatchNorm3d)
    register("linear", Linear)
    register("group_norm", GroupNorm)
    register("instance_norm", InstanceNorm)
    register("layer_norm1d", LayerNorm1d)
    register("layer_norm2d", LayerNorm2d)
    register("layer_norm3d", LayerNorm3d)
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
    register("hardtanh", Hardtanh)
    register("relu6", ReLU6)
    register("hardsigmoid", Hardsigmoid)
    register("hardswish", Hardswish)
    register("add", Add)
    register("broadcast_add", BroadcastAdd)
    register("add_scalar", AddScalar)
    register("multiply", Multiply)
    register("subtract", Subtract)
    register("matmul", Matmul)
    register("concat", Concat)
    register("split", Split)
    register("slice", Slice)
    register("simple_gate", SimpleGate)
    register("rescale", Rescale)
    register("layer_scale", LayerScale)
    register("dropout", Dropout)
    register("trained_tensor", TrainedTensor)
    register("fixed_tensor", FixedTensor)
    register("embedding", Embedding)
    register("position_embedding", PositionEmbedding)
    register("attention", Attention)
    register("layer_norm", LayerNorm)
    register("rms_norm", RMSNorm)
    register("softmax", Softmax)
    register("log_softmax", LogSoftmax)
    register("lstm", LSTM)
    register("gru", GRU)
    register("flatten", Flatten)
    register("reshape", Reshape)
    register("permute", Permute)
    register("mean", Mean)


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
    register("cross_entropy", CrossEntropy)
    register("nll", NLL)
    register("binary_cross_entropy_with_logits", BCEWithLogits)


@hookimpl
def graphnet_metrics(register: Register) -> None:
    register("accuracy", Accuracy)


@hookimpl
def graphnet_kernels(register: Register) -> None:
    # of those that fit, the first is taken
    for module in (
        patch,
        aten,
        norm,
        activation,
        hard,
        linear,
        aten_pool,
        resample,
        sequence,
        onednn,
        classes,
        multi_tensor,
    ):
        for name, kernel in module.KERNELS.items():
            register(name, kernel)


@hookimpl
def graphnet_operators(register: Register) -> None:
    for module in (images, tensors, sequences):
        for name, row in module.ROWS.items():
            register(name, row)


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

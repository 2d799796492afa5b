"""The built-in plugin: layers, kernels, optimizers, executors, by the same hooks as everyone's."""

from __future__ import annotations

from graphnet.executors.auto import Auto
from graphnet.executors.eager import Eager
from graphnet.executors.inductor import Inductor
from graphnet.executors.reference import Reference
from graphnet.hookspecs import Register, hookimpl
from graphnet.kernels import aten, gemm, norm, patch, winograd
from graphnet.layers.activation import ReLU, Sigmoid
from graphnet.layers.conv import Conv2d, TransposeConv2d, Upsampling
from graphnet.layers.loss import MSE
from graphnet.layers.masked_loss import MaskedMSE
from graphnet.layers.merge import Add, Concat
from graphnet.layers.norm import BatchNorm2d
from graphnet.layers.upsample import NearestUpsampling
from graphnet.optim import SGD, Adam, AdamW, ConstantSchedule, Cosine, OneCycle, WarmUp


@hookimpl
def graphnet_layers(register: Register) -> None:
    register("conv2d", Conv2d)
    register("transpose_conv2d", TransposeConv2d)
    register("upsampling", Upsampling)
    register("nearest_upsampling", NearestUpsampling)
    register("batch_norm2d", BatchNorm2d)
    register("relu", ReLU)
    register("sigmoid", Sigmoid)
    register("add", Add)
    register("concat", Concat)


@hookimpl
def graphnet_losses(register: Register) -> None:
    register("mse", MSE)
    register("masked_mse", MaskedMSE)


@hookimpl
def graphnet_kernels(register: Register) -> None:
    for module in (winograd, gemm, patch, aten, norm):  # the first that fits is taken
        for name, kernel in module.KERNELS.items():
            register(name, kernel)


@hookimpl
def graphnet_optimizers(register: Register) -> None:
    register("sgd", SGD)
    register("adam", Adam)
    register("adamw", AdamW)


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
    register("auto", Auto)

"""The modules of norms, with the arguments of torch's, in 1-D to 3-D."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from graphnet.nn.module import Module, layer_named
from graphnet.sdk import Layer, Spec


class _Norm(Module):
    """A module that makes its parameters at once, from the number of channels."""

    _name: ClassVar[str]
    _axes: ClassVar[int]

    def _start(self, layer: Layer, channels: int, axes: int, **options: Any) -> None:
        dtype = options.get("dtype") or torch.get_default_dtype()
        super().__init__(layer, specs=[Spec((1, channels, *(1,) * axes), dtype)], **options)


class _BatchNorm(_Norm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        **options: Any,
    ) -> None:
        layer = layer_named(
            self._name, num_features=num_features, eps=eps, momentum=momentum, affine=affine
        )
        self._start(layer, num_features, self._axes, **options)


class BatchNorm1d(_BatchNorm):
    """Normalizes each channel over the batch, with the arguments of torch.nn.BatchNorm1d.

    >>> BatchNorm1d(3)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    _name = "batch_norm1d"
    _axes = 1


class BatchNorm2d(_BatchNorm):
    """Normalizes each channel over the batch, with the arguments of torch.nn.BatchNorm2d.

    >>> BatchNorm2d(3)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 4, 4])
    """

    _name = "batch_norm2d"
    _axes = 2


class BatchNorm3d(_BatchNorm):
    """Normalizes each channel over the batch, with the arguments of torch.nn.BatchNorm3d.

    >>> BatchNorm3d(3)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 4, 4, 4])
    """

    _name = "batch_norm3d"
    _axes = 3


class GroupNorm(_Norm):
    """Normalizes groups of channels of each image, with the arguments of torch.nn.GroupNorm.

    >>> GroupNorm(2, 4)(torch.ones(1, 4, 6)).shape
    torch.Size([1, 4, 6])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        **options: Any,
    ) -> None:
        layer = layer_named(
            "group_norm", num_groups=num_groups, num_channels=num_channels, eps=eps, affine=affine
        )
        self._start(layer, num_channels, 1, **options)


class InstanceNorm(_Norm):
    """Normalizes each channel of each image, as torch.nn.InstanceNorm1d, 2d and 3d do by default.

    >>> InstanceNorm(3)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 4, 4])
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, affine: bool = False, **options: Any
    ) -> None:
        layer = layer_named("instance_norm", num_features=num_features, eps=eps, affine=affine)
        self._start(layer, num_features, 1, **options)


class _PixelNorm(_Norm):
    def __init__(
        self,
        num_channels: int,
        eps: float = 1e-6,
        affine: bool = True,
        bias: bool = True,
        subtract_mean: bool = True,
        **options: Any,
    ) -> None:
        layer = layer_named(
            self._name,
            num_channels=num_channels,
            eps=eps,
            affine=affine,
            bias=bias,
            subtract_mean=subtract_mean,
        )
        self._start(layer, num_channels, self._axes, **options)


class LayerNorm1d(_PixelNorm):
    """Normalizes the channels of each position of a signal.

    >>> LayerNorm1d(3)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 4])
    """

    _name = "layer_norm1d"
    _axes = 1


class LayerNorm2d(_PixelNorm):
    """Normalizes the channels of each pixel of an image.

    >>> LayerNorm2d(3)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 4, 4])
    """

    _name = "layer_norm2d"
    _axes = 2


class LayerNorm3d(_PixelNorm):
    """Normalizes the channels of each pixel of a volume.

    >>> LayerNorm3d(3)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 4, 4, 4])
    """

    _name = "layer_norm3d"
    _axes = 3

"""The modules of padding and resampling, in 1-D to 3-D."""

from __future__ import annotations

from typing import Any, ClassVar

from graphnet.nn.module import Module, layer_named

Size = int | tuple[int, ...]
"""One number for all spatial axes, or one for each."""


class _Pad(Module):
    _name: ClassVar[str]

    def __init__(self, padding: Size, **options: Any) -> None:
        super().__init__(layer_named(self._name, padding=padding), **options)


class _ConstantPad(Module):
    _name: ClassVar[str]

    def __init__(self, padding: Size, value: float = 0.0, **options: Any) -> None:
        super().__init__(layer_named(self._name, padding=padding, value=value), **options)


class ConstantPad1d(_ConstantPad):
    """Adds a border of one value, by default 0, with the arguments of torch.nn.ConstantPad1d.

    >>> ConstantPad1d(1)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 6])
    """

    _name = "constant_pad1d"


class ConstantPad2d(_ConstantPad):
    """Adds a border of one value, by default 0, with the arguments of torch.nn.ConstantPad2d.

    >>> ConstantPad2d(1)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 6, 6])
    """

    _name = "constant_pad2d"


class ConstantPad3d(_ConstantPad):
    """Adds a border of one value, by default 0, with the arguments of torch.nn.ConstantPad3d.

    >>> ConstantPad3d(1)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 6, 6, 6])
    """

    _name = "constant_pad3d"


class ReflectionPad1d(_Pad):
    """Adds a border of mirrored pixels, with the arguments of torch.nn.ReflectionPad1d.

    >>> ReflectionPad1d(1)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 6])
    """

    _name = "reflection_pad1d"


class ReflectionPad2d(_Pad):
    """Adds a border of mirrored pixels, with the arguments of torch.nn.ReflectionPad2d.

    >>> ReflectionPad2d(1)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 6, 6])
    """

    _name = "reflection_pad2d"


class ReflectionPad3d(_Pad):
    """Adds a border of mirrored pixels, with the arguments of torch.nn.ReflectionPad3d.

    >>> ReflectionPad3d(1)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 6, 6, 6])
    """

    _name = "reflection_pad3d"


class ReplicationPad1d(_Pad):
    """Adds a border of repeated outermost pixels, with the arguments of torch.nn.ReplicationPad1d.

    >>> ReplicationPad1d(1)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 6])
    """

    _name = "replication_pad1d"


class ReplicationPad2d(_Pad):
    """Adds a border of repeated outermost pixels, with the arguments of torch.nn.ReplicationPad2d.

    >>> ReplicationPad2d(1)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 6, 6])
    """

    _name = "replication_pad2d"


class ReplicationPad3d(_Pad):
    """Adds a border of repeated outermost pixels, with the arguments of torch.nn.ReplicationPad3d.

    >>> ReplicationPad3d(1)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 6, 6, 6])
    """

    _name = "replication_pad3d"


class CircularPad1d(_Pad):
    """Adds a border of the image's other end, with the arguments of torch.nn.CircularPad1d.

    >>> CircularPad1d(1)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 6])
    """

    _name = "circular_pad1d"


class CircularPad2d(_Pad):
    """Adds a border of the image's other end, with the arguments of torch.nn.CircularPad2d.

    >>> CircularPad2d(1)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 6, 6])
    """

    _name = "circular_pad2d"


class CircularPad3d(_Pad):
    """Adds a border of the image's other end, with the arguments of torch.nn.CircularPad3d.

    >>> CircularPad3d(1)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 6, 6, 6])
    """

    _name = "circular_pad3d"


class _Nearest(Module):
    _name: ClassVar[str]

    def __init__(self, scale_factor: Size, **options: Any) -> None:
        super().__init__(layer_named(self._name, scale_factor=scale_factor), **options)


class NearestUpsampling1d(_Nearest):
    """Repeats each value `scale_factor` times.

    >>> NearestUpsampling1d(2)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 8])
    """

    _name = "nearest_upsampling1d"


class NearestUpsampling(_Nearest):
    """Repeats each pixel in a block of `scale_factor` pixels: one integer, or (height, width).

    >>> NearestUpsampling(2)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 8, 8])
    """

    _name = "nearest_upsampling"


class NearestUpsampling3d(_Nearest):
    """Repeats each pixel of a volume in a block of `scale_factor` pixels.

    >>> NearestUpsampling3d(2)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 8, 8, 8])
    """

    _name = "nearest_upsampling3d"


class _Linear(Module):
    _name: ClassVar[str]

    def __init__(
        self,
        scale_factor: float | tuple[float, ...],
        align_corners: bool = False,
        **options: Any,
    ) -> None:
        layer = layer_named(self._name, scale_factor=scale_factor, align_corners=align_corners)
        super().__init__(layer, **options)


class LinearUpsampling(_Linear):
    """Interpolates each value from its two neighbours, as torch.nn.Upsample(mode="linear").

    >>> LinearUpsampling(1.5)(torch.ones(1, 3, 4)).shape
    torch.Size([1, 3, 6])
    """

    _name = "linear_upsampling"


class BilinearUpsampling(_Linear):
    """Interpolates each pixel from its four neighbours, as torch.nn.Upsample(mode="bilinear").

    >>> BilinearUpsampling(1.5)(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 3, 6, 6])
    """

    _name = "bilinear_upsampling"


class TrilinearUpsampling(_Linear):
    """Interpolates each pixel of a volume from its eight neighbours, as torch.nn.Upsample(mode="trilinear").

    >>> TrilinearUpsampling(1.5)(torch.ones(1, 3, 4, 4, 4)).shape
    torch.Size([1, 3, 6, 6, 6])
    """

    _name = "trilinear_upsampling"

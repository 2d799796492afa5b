"""What a format of still pictures can hold of a source, and a refusal in words of what it cannot."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from graphnet.errors import DataError
from graphnet_denoise.images.file import Colour, ImageFile
from graphnet_denoise.images.layout import Layout, Samples


def shape_for(height: int, width: int, samples: int) -> Layout:
    """The layout of a still picture: YXC, or YX if a pixel has one sample.

    >>> shape_for(4, 6, 3)
    Layout(axes='YXC', shape=(4, 6, 3))
    """
    return (
        Layout("YX", (height, width)) if samples == 1 else Layout("YXC", (height, width, samples))
    )


def together(samples: Samples) -> Samples:
    """Turn (C, H, W) into (H, W, C), or (H, W) if there is one channel, in the order of an encoder.

    >>> together(np.zeros((3, 1, 1), np.uint8)).strides, together(np.zeros((1, 4, 6))).shape
    ((3, 3, 1), (4, 6))
    """
    array = np.ascontiguousarray(samples.transpose(1, 2, 0))
    if 1 in array.shape:  # an axis of one entry may have an odd stride, which encoders refuse
        array = np.array(array, order="C", copy=True)
    return array[..., 0] if len(samples) == 1 else array


def refuse(
    name: Path,
    title: str,
    source: ImageFile,
    *,
    colours: Collection[Colour],
    alpha: bool = True,
    side: int = 0,
) -> None:
    """Raise DataError if a format with these colours and longest side cannot hold the source.

    A source of more bits is scaled down where the format has 8, as everyone expects of a JPEG; floating-point
    and signed numbers have no black and white, so that they are refused.
    """
    found = ""
    if source.planes > 1:
        found = f"{source.planes} planes"
    elif source.colour not in colours:
        channels = "channel" if source.channels == 1 else "channels"
        found = f"{source.channels} {channels} ({source.colour})"
    elif source.dtype.kind != "u" or source.bits > 16:
        found = f"numbers of the type {source.dtype}"
    elif source.alpha and not alpha:
        found = "alpha"
    elif side and max(source.height, source.width) > side:
        found = f"{source.height} x {source.width} pixels"
    if found:
        raise DataError(
            f"{name}: {title} cannot hold the {found} of {source.path}. Give a name that ends in .tif"
        )

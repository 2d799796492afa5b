"""Read image files for napari, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
from dask.delayed import delayed
from graphnet_denoise.images import open_image
from numpy.typing import NDArray

from graphnet.errors import GraphnetError

_ARRAY: Any = dask.array  # its functions have no types

LayerData = tuple[Any, dict[str, Any], str]
"""The data of a layer, the arguments of its constructor, and its kind: what napari's readers return."""


def reader_of(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return a function that reads the file, or None if graphnet-denoise cannot read it."""
    first = path if isinstance(path, str) else path[0]
    try:
        with open_image(Path(first)):
            return read_layers
    except GraphnetError:
        return None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Make a layer of each file; raises DataError for a damaged one."""
    files = [path] if isinstance(path, str) else list(path)
    return [_layer(Path(file)) for file in files]


def _layer(file: Path) -> LayerData:
    """A layer whose frames are read when they are shown; channels that are no colours become layers."""
    with open_image(file) as source:
        axes, colour, planes = source.axes, source.colour in ("rgb", "ycbcr"), source.planes
        frame = (source.channels, source.height, source.width)
        dtype = source.dtype
        outer = [
            size for letter, size in zip(axes, source.shape, strict=True) if letter not in "CSYX"
        ]
    read = delayed(_read, pure=True)
    stack = _ARRAY.stack(
        [_ARRAY.from_delayed(read(file, plane), frame, dtype) for plane in range(planes)]
    )
    settings: dict[str, Any] = {"name": file.stem}
    if colour and frame[0] == 3:
        data = _ARRAY.moveaxis(stack, 1, -1).reshape(*outer, *frame[1:], 3)
        settings["rgb"] = True
    elif frame[0] == 1:
        data = stack.reshape(*outer, *frame[1:])
    else:
        data = stack.reshape(*outer, *frame)
        settings["channel_axis"] = len(outer)
    return data, settings, "image"


def _read(file: Path, plane: int) -> NDArray[Any]:
    with open_image(file) as source:
        return np.asarray(source.read(plane))

"""Image layers: their pixels at full resolution, and what their axes are."""

from __future__ import annotations

from typing import Any

import dask.array
import numpy as np
from napari.layers import Image

_DASK: Any = dask.array  # its functions have no types
_AXES = ("YX", "IYX", "TZYX")
"""The axes of a layer by their number, if it does not say what they are."""
_KNOWN = set("TZ")


def pixels_of(layer: Image) -> Any:
    """The array of a layer, of numpy or dask; of several resolutions, the full one."""
    data = layer.data[0] if layer.multiscale else layer.data
    return data if isinstance(data, np.ndarray | _DASK.Array) else _DASK.asarray(data)


def axes_of(layer: Image, letter: str = "") -> str:
    """Return one letter for each axis of a layer's data, as `graphnet_denoise.denoise` takes them.

    Args:
        layer: the layer; its axis labels T and Z count, and others say nothing.
        letter: what the first axis of three is, T or Z; empty if nobody says it.

    Raises:
        ValueError: the layer has more than four axes and the colours.
    """
    count = pixels_of(layer).ndim - bool(layer.rgb)
    if count - 2 >= len(_AXES):
        raise ValueError(
            f"{layer.name}: expected at most 4 axes besides the colours, found {count}"
        )
    labels = "".join(layer.axis_labels[:-2]).upper()
    axes = _AXES[count - 2]
    if letter and count == 3:
        axes = f"{letter}YX"
    elif len(set(labels)) == len(labels) == count - 2 and set(labels) <= _KNOWN:
        axes = f"{labels}YX"
    return axes + "S" * bool(layer.rgb)

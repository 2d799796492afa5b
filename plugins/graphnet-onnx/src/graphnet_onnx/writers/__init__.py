"""Writers: how each built-in layer is written as ONNX operators, one family a file."""

from __future__ import annotations

from collections.abc import Mapping

from graphnet_onnx.writers import (
    activation,
    attention,
    axes,
    convolution,
    merge,
    norm,
    pad,
    pool,
    recurrent,
    resize,
)
from graphnet_onnx.writing import OnnxWriter

WRITERS: Mapping[str, type[OnnxWriter]] = {
    name: writer
    for family in (
        convolution,
        resize,
        pool,
        pad,
        norm,
        activation,
        merge,
        attention,
        recurrent,
        axes,
    )
    for name, writer in family.WRITERS.items()
}
"""The name of a layer -> its writer."""

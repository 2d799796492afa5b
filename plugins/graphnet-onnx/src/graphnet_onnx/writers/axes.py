"""Writers of layers that rearrange or reduce axes, and of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphnet_onnx.writing import Nodes, OnnxWriter, Port


class WriteFlatten(OnnxWriter):
    """Reshape, with the sizes of the other axes."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        start, end = layer.start_dim % x.ndim, layer.end_dim % x.ndim
        if end == x.ndim - 1:
            return to.reshape(x, (*(0,) * start, -1))
        parts = [to.integers((*(0,) * start, -1)), to.sizes(x, end + 1)]
        return to.add("Reshape", x, to.add("Concat", *parts, axis=0))


class WriteReshape(OnnxWriter):
    """Reshape."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.reshape(x, (0, *layer.shape))


class WritePermute(OnnxWriter):
    """Transpose."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.transpose(x, layer.dims)


class WriteMean(OnnxWriter):
    """ReduceMean."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.mean(x, layer.dim, keepdims=layer.keepdim)


class WritePixelShuffle(OnnxWriter):
    """DepthToSpace in torch's order of channels."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        return to.add("DepthToSpace", x, blocksize=layer.upscale_factor, mode="CRD")


class WritePixelUnshuffle(OnnxWriter):
    """SpaceToDepth, then the channels in torch's order."""

    def write(self, layer: Any, to: Nodes, x: Port) -> str:
        channels, block = x.size(1), layer.downscale_factor**2
        order = [part * channels + c for c in range(channels) for part in range(block)]
        y = to.add("SpaceToDepth", x, blocksize=layer.downscale_factor)
        return to.add("Gather", y, to.integers(order), axis=1)


class WriteEmbedding(OnnxWriter):
    """Gather."""

    def write(self, layer: Any, to: Nodes, indices: Port, weight: Port) -> str:
        return to.add("Gather", weight, indices, axis=0)


class WritePositionEmbedding(OnnxWriter):
    """Add, with as many rows of the weight as x has positions."""

    def write(self, layer: Any, to: Nodes, x: Port, weight: Port) -> str:
        rows = to.add("Slice", weight, to.integers([0]), to.sizes(x, 1, 2), to.integers([0]))
        return to.add("Add", x, rows)


WRITERS: Mapping[str, type[OnnxWriter]] = {
    "flatten": WriteFlatten,
    "reshape": WriteReshape,
    "permute": WritePermute,
    "mean": WriteMean,
    "pixel_shuffle": WritePixelShuffle,
    "pixel_unshuffle": WritePixelUnshuffle,
    "embedding": WriteEmbedding,
    "position_embedding": WritePositionEmbedding,
}

"""The hook by which this distribution adds to graphnet-onnx, where that is installed."""

from __future__ import annotations

from graphnet.sdk import Register, hookimpl

GRAPHNET_CONTRACT = 2


@hookimpl(optionalhook=True)
def graphnet_onnx_writers(register: Register) -> None:
    """Add the writers of the layers that make an exported network take images of any size."""
    from graphnet_denoise.exporting.onnx_writers import WriteCropTo, WritePadToMultiple

    register("denoise/pad_to_multiple", WritePadToMultiple)
    register("denoise/crop_to", WriteCropTo)

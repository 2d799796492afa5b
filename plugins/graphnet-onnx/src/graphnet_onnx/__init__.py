"""graphnet-onnx: models of graphnet as ONNX files, and back.

    graphnet_onnx.export(model, "model.onnx", (1, 3, 64, 64))
    model = gn.load("model.onnx")

`OnnxWriter` is what an author of a layer writes, so that the layer can be exported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphnet_onnx.writing import OPSET, CannotExport, Nodes, OnnxWriter, Port

if TYPE_CHECKING:
    from graphnet_onnx.exporter import export

__all__ = ["OPSET", "CannotExport", "Nodes", "OnnxWriter", "Port", "export"]


def __getattr__(name: str) -> Any:
    """Import what needs onnx on its first use: the hooks need none of it."""
    if name == "export":
        from graphnet_onnx import exporter

        return exporter.export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""graphnet-onnx: models of graphnet as ONNX files, and back.

    graphnet_onnx.export(model, "model.onnx", (1, 3, 64, 64))
    model = gn.load("model.onnx")

`OnnxWriter` is what an author of a layer writes, so that the layer can be exported.
"""

from __future__ import annotations

from graphnet_onnx.exporter import OPSET, Exported, export
from graphnet_onnx.writing import CannotExport, Nodes, OnnxWriter, Port

__all__ = ["OPSET", "CannotExport", "Exported", "Nodes", "OnnxWriter", "Port", "export"]

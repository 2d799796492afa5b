"""Writer: what `graphnet export MODEL -o model.onnx` and `gn.export` call; it imports onnx when it writes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from graphnet.sdk import Writer, Written
from graphnet_onnx.writing import OPSET


def _names(value: object) -> object:
    """One name stands for a list of one."""
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


class OnnxFile(Writer):
    """Writes a model as an ONNX file, with its weights, in float32.

    fixed: the names of the sizes that the file fixes to those of the shapes, such as height, or all.
      Default: none, so that the batch and the sizes that the model's description leaves open are free, as far
      as the model takes other numbers there.
    opset: the version of ONNX's operators, 17 to 20. Default: 20.
    """

    fixed: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    opset: int = OPSET

    def write(self, model: Any, path: Path, shapes: Sequence[tuple[int, ...]]) -> Written:
        """Write the file. Raises CannotExport if a layer has no operators, InputError for an unknown size."""
        exporter = importlib.import_module("graphnet_onnx.exporter")
        written: Written = exporter.export(model, path, *shapes, fixed=self.fixed, opset=self.opset)
        return written

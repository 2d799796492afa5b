"""The hooks of this distribution. They do not import onnx."""

from __future__ import annotations

from pathlib import Path

from graphnet.sdk import ModelFile, OwnKind, Register, hookimpl


@hookimpl
def graphnet_kinds(register: Register) -> None:
    """Declare the writers of layers, to which other distributions can add."""
    from graphnet_onnx.writing import KIND, OnnxWriter

    register(KIND, OwnKind("ONNX writer", OnnxWriter, needs=("write",)))


@hookimpl
def graphnet_onnx_writers(register: Register) -> None:
    """Add the writers of the built-in layers."""
    from graphnet_onnx.writers import WRITERS

    for name, writer in WRITERS.items():
        register(name, writer)


@hookimpl
def graphnet_writers(register: Register) -> None:
    """Write models as .onnx files."""
    from graphnet_onnx.writer import OnnxFile

    register(".onnx", OnnxFile)


@hookimpl
def graphnet_readers(register: Register) -> None:
    """Read models from .onnx files."""
    register(".onnx", read)


def read(path: Path) -> ModelFile:
    """Read a model from an ONNX file; see graphnet_onnx.reader."""
    from graphnet_onnx import reader

    return reader.read(path)

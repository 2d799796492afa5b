"""Parity: export layers and models, run the files in onnxruntime, and compare with graphnet's own results.

It needs onnxruntime: `pip install onnxruntime`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import onnx
import torch
from torch import Tensor

from graphnet.errors import GraphError, InputError
from graphnet.model import Model
from graphnet.sdk import Registry
from graphnet.testing import Case, NoSample, model_of, varied_cases_for
from graphnet_onnx.exporter import to_onnx
from graphnet_onnx.writing import OPSET, CannotExport

TOLERANCE = 1e-5
"""The largest error, in parts of the largest value or of 1 if all are smaller."""


class Outcome(StrEnum):
    """The result of one export."""

    EQUAL = "equal"
    FIXED = "equal with fixed sizes"
    REFUSED = "refused"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Compared:
    """One layer or model that was exported: its name, the result, and the reason or the error."""

    what: str
    outcome: Outcome
    detail: str = ""


def compare_layer(name: str, registry: Registry, *, opset: int = OPSET) -> Iterator[Compared]:
    """Export a layer alone, in every configuration that the conformance kit has for it, and compare."""
    try:
        cases, _ = varied_cases_for(registry.find("layers", name).value, registry=registry)
    except NoSample as error:
        yield Compared(name, Outcome.REFUSED, f"the kit has no sample: {error}")
        return
    for case in cases:
        assert isinstance(case, Case)
        if case.raises is None:
            yield compare_case(name, case, opset=opset)


def compare_case(name: str, case: Case, *, opset: int = OPSET) -> Compared:
    """Export one configuration of a layer, with free sizes if it allows them, and compare."""
    model, inputs = model_of(name, case)
    what = str(case)
    try:
        error = compare(model, inputs, opset=opset)
    except CannotExport as refused:
        try:
            error = compare(model, inputs, fixed=_all_but_batch(model), opset=opset)
        except CannotExport as fixed:
            return Compared(what, Outcome.REFUSED, str(fixed))
        outcome = Outcome.FIXED if error <= TOLERANCE else Outcome.WRONG
        detail = str(refused) if outcome is Outcome.FIXED else f"error {error:.1e}, fixed sizes"
        return Compared(what, outcome, detail)
    outcome = Outcome.EQUAL if error <= TOLERANCE else Outcome.WRONG
    return Compared(what, outcome, "" if outcome is Outcome.EQUAL else f"error {error:.1e}")


def compare(
    model: Model, inputs: Sequence[Tensor], *, fixed: Collection[str] = (), opset: int = OPSET
) -> float:
    """Export a model, run it on the inputs and on inputs of twice the free sizes, and return the error.

    The error is in parts of the largest value, or of 1 if all are smaller; infinite if shapes differ.
    """
    proto = to_onnx(model, *(tuple(x.shape) for x in inputs), fixed=fixed, opset=opset)
    error = _error(model, proto, inputs)
    larger = [_larger(x, info) for x, info in zip(inputs, proto.graph.input, strict=True)]
    if any(x.shape != y.shape for x, y in zip(inputs, larger, strict=True)):
        with suppress(GraphError):  # a model may take twice each size, but not all of them at once
            error = max(error, _error(model, proto, larger))
    return error


def _all_but_batch(model: Model) -> list[str]:
    """The names of the sizes that the model leaves open, without the batch."""
    axes = (axis for described in model.description.inputs.values() for axis in described.axes)
    return [axis for axis in axes if isinstance(axis, str)]


def _larger(x: Tensor, info: onnx.ValueInfoProto) -> Tensor:
    """The input with twice the size on each free axis."""
    axes = info.type.tensor_type.shape.dim
    return x.repeat([2 if axis.dim_param else 1 for axis in axes]) if axes else x


def _error(model: Model, proto: onnx.ModelProto, inputs: Sequence[Tensor]) -> float:
    exact = [x.double() if x.is_floating_point() else x for x in inputs]
    expected = model.predict(*exact, kernels="reference")
    expected = expected if isinstance(expected, tuple) else (expected,)
    names = [info.name for info in proto.graph.input]
    found = run(proto, dict(zip(names, inputs, strict=True)))
    return max(map(difference, found, expected))


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest error in parts of the largest value, or of 1; infinite if shapes or kinds differ."""
    if found.shape != expected.shape:
        return float("inf")
    if found.numel() == 0:
        return 0.0
    expected = expected.double()
    scale = max(1.0, float(expected.abs().max()))
    error = float((found.double() - expected).abs().max()) / scale
    return error if error == error else float("inf")


def run(proto: onnx.ModelProto, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Run an ONNX model in onnxruntime. Raises InputError if onnxruntime is not installed."""
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        raise InputError("onnxruntime is not installed. Run: pip install onnxruntime") from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {name: x.contiguous().numpy() for name, x in inputs.items()})
    return [torch.from_numpy(array) for array in found]

"""Node cases: ONNX's own test cases of its operators, read as models of graphnet and compared, forward."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from graphnet.errors import DescriptionError, GraphnetError, Problem
from graphnet.model import Model
from graphnet_onnx.operators import READERS
from graphnet_onnx.parity import Compared, Outcome
from graphnet_onnx.reader import read_operators

_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""The largest error, in parts of the largest value, or of the case's own tolerance if that is larger."""


def node_cases() -> Iterator[tuple[str, Any]]:
    """The operator and the case of each of ONNX's node cases.

    A case of several operators is the expansion of one operator into others; it counts as "Other".
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX's own cases overflow on purpose
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases()
    for case in cases:
        if case.model is not None:
            operators = {node.op_type for node in case.model.graph.node}
            yield operators.pop() if len(operators) == 1 else "Other", case


def readable(operator: str) -> bool:
    """Whether any layer computes an operator."""
    return operator in READERS


def compare_node_case(case: Any) -> Compared:
    """Read a case, run it, and compare with the outputs that ONNX states.

    The inputs of a case that are weights are graph inputs there. So all inputs are tried as inputs of the
    model first; if that is refused, all but one become constants.
    """
    inputs = [info.name for info in case.model.graph.input]
    choices = [inputs, *([name] for name in inputs)]
    refusals: list[str] = []
    for kept in choices:
        try:
            return _compared(case, kept)
        except GraphnetError as error:
            refusals.append(" ".join(str(error).split()))
    weights = [text for text in refusals if "must be a constant" not in text]
    return Compared(case.name, Outcome.REFUSED, (weights or refusals)[0])


def _compared(case: Any, kept: Sequence[str]) -> Compared:
    worst = 0.0
    for given, expected in case.data_sets:
        names = [info.name for info in case.model.graph.input]
        arrays = dict(zip(names, given, strict=True))
        proto = onnx.ModelProto()
        proto.CopyFrom(case.model)
        for name in names:
            if name not in kept:
                proto.graph.initializer.append(_initializer(arrays[name], name))
        file = read_operators(proto, case.name)
        model = Model(file.description, weights=file.weights)
        found = model.predict(*(_tensor(arrays[name]) for name in names if name in kept))
        results = found if isinstance(found, tuple) else (found,)
        for one, array in zip(results, expected, strict=True):
            worst = max(worst, _excess(one, _tensor(array), case.rtol))
    if worst > 1:
        return Compared(case.name, Outcome.WRONG, f"{worst:.1e} times the tolerance")
    return Compared(case.name, Outcome.EQUAL)


def _excess(found: Tensor, expected: Tensor, relative: float) -> float:
    """The error divided by what is allowed; integers, infinities and NaN must be equal."""
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return float("inf")
    if torch.equal(found, expected):
        return 0.0
    if not expected.is_floating_point():
        return float("inf")
    finite = expected.isfinite()
    if not torch.equal(found.isfinite(), finite):
        return float("inf")
    others = torch.equal(found[~finite].nan_to_num(0.0), expected[~finite].nan_to_num(0.0))
    exact = expected[finite].double()
    error = (found[finite].double() - exact).abs()
    scale = max(1.0, float(exact.abs().max()))
    allowed = (relative * exact.abs()).clamp_min(_TOLERANCES[expected.dtype] * scale)
    return float((error / allowed).max()) if others else float("inf")


def _tensor(value: Any) -> Tensor:
    """A tensor of a case. Raises DescriptionError for sequences and optional values."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    try:
        return torch.from_numpy(np.array(value))
    except (TypeError, ValueError):
        found = getattr(value, "dtype", type(value).__name__)
        raise DescriptionError(
            [Problem(f"expected a tensor that torch has, found {found}")]
        ) from None


def _initializer(value: Any, name: str) -> onnx.TensorProto:
    if isinstance(value, onnx.TensorProto):
        named = onnx.TensorProto()
        named.CopyFrom(value)
        named.name = name
        return named
    return numpy_helper.from_array(np.array(value), name)

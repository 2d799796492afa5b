"""Writers of recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphnet_onnx.writing import Input, Nodes, OnnxWriter, Port


class _WriteRecurrent(OnnxWriter):
    """A recurrent operator, which wants time first and its gates in ONNX's order."""

    operator: ClassVar[str]
    order: ClassVar[Sequence[int]]  # of the layer's gates
    attributes: ClassVar[Mapping[str, int]] = {}

    def write(
        self,
        layer: Any,
        to: Nodes,
        x: Port,
        weight_ih_l0: Port,
        weight_hh_l0: Port,
        bias_ih_l0: Port | None,
        bias_hh_l0: Port | None,
    ) -> str:
        biases = None
        if bias_ih_l0 is not None and bias_hh_l0 is not None:
            parts = [self.reordered(to, bias) for bias in (bias_ih_l0, bias_hh_l0)]
            biases = _with_direction(to, to.add("Concat", *parts, axis=0))
        weights = [_with_direction(to, self.reordered(to, w)) for w in (weight_ih_l0, weight_hh_l0)]
        y, _ = to.add_many(
            self.operator,
            to.transpose(x, (1, 0, 2)),
            *weights,
            biases,
            outputs=2,
            hidden_size=layer.hidden_size,
            **self.attributes,
        )
        return to.transpose(to.add("Squeeze", y, to.integers([1])), (1, 0, 2))

    def reordered(self, to: Nodes, rows: Port) -> str:
        """The rows of a parameter with its gates in ONNX's order."""
        gates = len(self.order)
        parts = to.split(rows, gates, axis=0)
        return to.add("Concat", *(parts[i] for i in self.order), axis=0)


class WriteLSTM(_WriteRecurrent):
    """LSTM, whose gates are i, o, f and g."""

    operator: ClassVar[str] = "LSTM"
    order: ClassVar[Sequence[int]] = (0, 3, 1, 2)


class WriteGRU(_WriteRecurrent):
    """GRU, whose gates are z, r and n."""

    operator: ClassVar[str] = "GRU"
    order: ClassVar[Sequence[int]] = (1, 0, 2)
    attributes: ClassVar[Mapping[str, int]] = {"linear_before_reset": 1}


def _with_direction(to: Nodes, rows: Input) -> str:
    """The operators have a first axis for the directions."""
    return to.add("Unsqueeze", rows, to.integers([0]))


WRITERS: Mapping[str, type[OnnxWriter]] = {"lstm": WriteLSTM, "gru": WriteGRU}

"""Kernel of lstm by oneDNN. Axes as in graphnet.builtin.layers.recurrent.

torch.ops.graphnet.onednn_lstm(x, weight_ih, weight_hh, bias_ih, bias_hh, workspace)
    y (N, T, H), the workspace that backward reads (bytes), and the last cell (N, H). `workspace` is the
    number of its bytes; with 0 it stays empty, for inference.
torch.ops.graphnet.onednn_lstm_backward(grad_y, x, y, weight_ih, weight_hh, workspace, cell, bias)
    The gradients of x, weight_ih, weight_hh and of each bias.

They call torch's operators for oneDNN, which read strides wrongly, and do not say how large the workspace is.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from graphnet.builtin.layers.recurrent import LSTM, Gradients
from graphnet.sdk import Kernel, Layer, Site, register_operator

_aten = torch.ops.aten
_LSTM = 2  # torch's number of this kind of recurrent layer


def _lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    workspace: int,
) -> tuple[Tensor, Tensor, Tensor]:
    none = x.new_zeros(weight_hh.shape[0])
    biases = (none if bias is None else bias for bias in (bias_ih, bias_hh))
    inputs = _inputs(x, weight_ih, weight_hh, *biases)
    with torch.set_grad_enabled(workspace > 0):  # without it, torch leaves out the workspace
        y, _, cell, made = _aten.mkldnn_rnn_layer.default(
            *(*inputs, False, [], _LSTM, weight_hh.shape[1], 1),
            *(bias_ih is not None, False, False, True),
        )
    return y.transpose(0, 1), x.new_empty(0, dtype=torch.uint8) if made is None else made, cell


def _lstm_backward(
    grad_y: Tensor,
    x: Tensor,
    y: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    workspace: Tensor,
    cell: Tensor,
    bias: bool,
) -> tuple[Tensor, ...]:
    none = x.new_zeros(weight_hh.shape[0])  # the workspace has what depends on the biases
    inputs = _inputs(x, weight_ih, weight_hh, none, none)
    states, grads = (z.transpose(0, 1).contiguous() for z in (y, grad_y))
    zeros = inputs[-1]
    grad_x, grad_ih, grad_hh, grad_bias, *_ = _aten.mkldnn_rnn_layer_backward.default(
        *(*inputs, states, states[-1], cell, grads, zeros, zeros, False, _LSTM),
        *(weight_hh.shape[1], 1, bias, True, False, [], False, workspace),
    )
    return grad_x.transpose(0, 1), grad_ih, grad_hh, grad_bias


def _inputs(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    """Return what oneDNN reads, contiguous: the steps (T, N, I), the parameters, two states of zeros."""
    zeros = x.new_zeros(x.shape[0], parameters[1].shape[1])
    given = (x.transpose(0, 1), *parameters)
    return *(tensor.detach().contiguous() for tensor in given), zeros, zeros


def _lstm_shapes(
    x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Any, bias_hh: Any, workspace: int
) -> tuple[Tensor, Tensor, Tensor]:
    n, t, _ = x.shape
    hidden = weight_hh.shape[1]
    y = x.new_empty(t, n, hidden).transpose(0, 1)
    return y, x.new_empty(workspace, dtype=torch.uint8), x.new_empty(n, hidden)


def _lstm_backward_shapes(
    grad_y: Tensor, x: Tensor, y: Tensor, weight_ih: Tensor, weight_hh: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    n, t, features = x.shape
    bias = x.new_empty(weight_hh.shape[0])
    grads = (
        torch.empty_like(w, memory_format=torch.contiguous_format) for w in (weight_ih, weight_hh)
    )
    return x.new_empty(t, n, features).transpose(0, 1), *grads, bias


onednn_lstm = register_operator(
    "onednn_lstm(Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
    "int workspace) -> (Tensor, Tensor, Tensor)",
    _lstm,
    _lstm_shapes,
)
onednn_lstm_backward = register_operator(
    "onednn_lstm_backward(Tensor grad_y, Tensor x, Tensor y, Tensor weight_ih, Tensor weight_hh, "
    "Tensor workspace, Tensor cell, bool bias) -> (Tensor, Tensor, Tensor, Tensor)",
    _lstm_backward,
    _lstm_backward_shapes,
)


@register_flop_formula(onednn_lstm)
def _flops(x: Any, weight_ih: Any, weight_hh: Any, *_: Any, **__: Any) -> int:
    """Those of the products with both weights, in each step."""
    n, t, features = x
    rows, hidden = weight_hh
    return int(2 * n * t * rows * (features + hidden))


@register_flop_formula(onednn_lstm_backward)
def _flops_backward(
    grad_y: Any, x: Any, y: Any, weight_ih: Any, weight_hh: Any, *_: Any, **__: Any
) -> int:
    return 2 * _flops(x, weight_ih, weight_hh)


@functools.cache
def _workspace_bytes(n: int, t: int, features: int, hidden: int) -> int | None:
    """The bytes that oneDNN's backward reads, found by a run; None if this machine has no such lstm."""
    x = torch.zeros(n, t, features)
    weights = torch.zeros(4 * hidden, features), torch.zeros(4 * hidden, hidden)
    try:
        return _lstm(x, *weights, None, None, 1)[1].numel()
    except RuntimeError:
        return None


class OneDNNLSTM(Kernel):
    """lstm by oneDNN's forward and backward, in float32 on a CPU. In another dtype the layer itself runs.

    In float32, `record` is oneDNN's workspace and `cells` the last cell (N, H); in others, these are the
    layer's saves.
    """

    replaces = "lstm(x, weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0)"
    saves: ClassVar[tuple[str, ...]] = ("record", "cells")
    hidden_size: int
    bias: bool
    workspace: int

    @classmethod
    def match(cls, site: Site) -> Self | None:
        (layer,), x = site.layers, site.specs["x"]
        assert isinstance(layer, LSTM)
        if site.device.type != "cpu" or x is None or not x.numel:
            return None
        n, t, features = x.shape
        size = _workspace_bytes(n, t, features, layer.hidden_size)
        if size is None:
            return None
        return cls(hidden_size=layer.hidden_size, bias=layer.bias, workspace=size)

    @functools.cached_property
    def layer(self) -> LSTM:
        """The layer that runs in other dtypes."""
        return LSTM(hidden_size=self.hidden_size, bias=self.bias)

    def forward(
        self,
        x: Tensor,
        weight_ih_l0: Tensor,
        weight_hh_l0: Tensor,
        bias_ih_l0: Tensor | None,
        bias_hh_l0: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = (x, weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0)
        if x.dtype != torch.float32:
            return self.layer.forward(*given)
        results: tuple[Tensor, Tensor, Tensor] = onednn_lstm(*given, self.workspace)
        return results

    def inference(
        self,
        x: Tensor,
        weight_ih_l0: Tensor,
        weight_hh_l0: Tensor,
        bias_ih_l0: Tensor | None,
        bias_hh_l0: Tensor | None,
    ) -> Tensor:
        given = (x, weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0)
        if x.dtype != torch.float32:
            return self.layer.forward(*given)[0]
        y: Tensor = onednn_lstm(*given, 0)[0]
        return y

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        y: Tensor,
        weight_ih_l0: Tensor,
        weight_hh_l0: Tensor,
        record: Tensor,
        cells: Tensor,
    ) -> Gradients:
        given = (grad_y, x, y, weight_ih_l0, weight_hh_l0, record, cells)
        if x.dtype != torch.float32:
            return self.layer.backward(*given)
        grad_x, grad_ih, grad_hh, grad_bias = onednn_lstm_backward(*given, self.bias)
        biases = (grad_bias, grad_bias.clone()) if self.bias else (None, None)
        return grad_x, grad_ih, grad_hh, *biases


KERNELS: dict[str, type[Layer]] = {"onednn/lstm": OneDNNLSTM}

"""Recurrent layers over whole sequences: LSTM and GRU, with their own backward through time.

Axes: N batch, T steps of time, I input features, H hidden features. Parameters have torch's names: l0 stands
for the first layer, which is the only one here.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, ParameterSpec, Precision, Spec, Specs, Uniform

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Those of x, weight_ih_l0, weight_hh_l0, bias_ih_l0 and bias_hh_l0."""


class Recurrent(Layer):
    """A layer whose state h of each step depends on the input and the state before it; h starts at 0.

    A subclass states `gates`, the number of gates, whose rows stand one after the other in each parameter.
    `batch_first` says that the batch is the first axis, as in all layers here; it has no other value.

    Raises:
        GraphError: x does not have the axes N T I, one of T and I is 0, or I is not the stated input_size.
    """

    precision: ClassVar[Precision] = "compute"
    gates: ClassVar[int]
    input_size: PositiveInt | None = None
    hidden_size: PositiveInt
    bias: bool = True
    batch_first: Literal[True] = True

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        x: Spec = specs["x"]
        if len(x.shape) != 3 or 0 in x.shape[1:]:
            raise GraphError(
                f"expected an input N x T x I, of at least one step and one feature, got {x}"
            )
        if self.input_size not in (None, x.shape[2]):
            raise GraphError(
                f"expected {self.input_size} features on the last axis, got {x}. "
                f"Set input_size: {x.shape[2]}, or leave it out."
            )
        rows = self.gates * self.hidden_size
        start = Uniform(1.0 / math.sqrt(self.hidden_size))
        bias = ParameterSpec((rows,), start) if self.bias else None
        return {
            "weight_ih_l0": ParameterSpec((rows, x.shape[2]), start),
            "weight_hh_l0": ParameterSpec((rows, self.hidden_size), start),
            "bias_ih_l0": bias,
            "bias_hh_l0": bias,
        }

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit: with a bias, and without one."""
        return [
            (cls(hidden_size=2), [(2, 3, 4)]),
            (cls(hidden_size=3, bias=False), [(3, 2, 1)]),
        ]


class LSTM(Recurrent):
    """Long short-term memory over a whole sequence (Hochreiter & Schmidhuber 1997; forget gate: Gers 2000).

    As torch.nn.LSTM with one layer and batch_first=True, whose first output y is. In each step, with a =
    weight_ih_l0 x_t + bias_ih_l0 + weight_hh_l0 h_{t-1} + bias_hh_l0 in four parts, in this order:
        i, f, o = sigmoid of parts 0, 1 and 3;  g = tanh of part 2;
        c_t = f c_{t-1} + i g;  h_t = o tanh(c_t);  y_t = h_t,
    with c_0 and h_0 = 0 before the first step. Backward, from the last step to the first, with dh the
    gradient of y_t plus what step t + 1 hands back:
        dc = what t + 1 hands back + dh o (1 - tanh(c_t)^2);  do = dh tanh(c_t);
        di = dc g;  df = dc c_{t-1};  dg = dc i;  each times the slope of its gate gives da;
        handed to step t - 1:  weight_hh_l0^T da for h, and dc f for c.
    The gradients of the parameters are sums over all steps.

    x: (N, T, I); y: (N, T, H), H = hidden_size; weight_ih_l0: (4H, I), weight_hh_l0: (4H, H), biases:
    (4H,), none if the field `bias` is false, all drawn from U(-k, k), k = 1 / sqrt(H), as torch's. Any
    floating dtype. input_size may be left out: I is then the size of the last axis. Backward keeps x,
    y, the gates (N, T, 4H) and c (N, T, H).

    Raises:
        GraphError: x does not have the axes N T I, one of T and I is 0, or I is not the stated input_size.

    >>> LSTM(hidden_size=5).parameters({"x": Spec((2, 7, 3))})["weight_hh_l0"].shape
    (20, 5)
    """

    gates: ClassVar[int] = 4
    saves: ClassVar[tuple[str, ...]] = ("activations", "cells")

    def forward(
        self,
        x: Tensor,
        weight_ih_l0: Tensor,
        weight_hh_l0: Tensor,
        bias_ih_l0: Tensor | None,
        bias_hh_l0: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = x @ weight_ih_l0.t()
        if bias_ih_l0 is not None and bias_hh_l0 is not None:
            inputs = inputs + (bias_ih_l0 + bias_hh_l0)
        h = c = x.new_zeros(x.shape[0], self.hidden_size)
        states, cells, activations = [], [], []
        for t in range(x.shape[1]):
            parts = (inputs[:, t] + h @ weight_hh_l0.t()).chunk(4, 1)
            i, f, o = (parts[k].sigmoid() for k in (0, 1, 3))
            g = parts[2].tanh()
            c = f * c + i * g
            h = o * c.tanh()
            states.append(h)
            cells.append(c)
            activations.append(torch.cat((i, f, g, o), 1))
        return torch.stack(states, 1), torch.stack(activations, 1), torch.stack(cells, 1)

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        y: Tensor,
        weight_ih_l0: Tensor,
        weight_hh_l0: Tensor,
        activations: Tensor,
        cells: Tensor,
    ) -> Gradients:
        zeros = torch.zeros_like(grad_y[:, 0])
        handed_h = handed_c = zeros
        found: list[Tensor] = []
        for t in reversed(range(x.shape[1])):
            i, f, g, o = activations[:, t].chunk(4, 1)
            before = cells[:, t - 1] if t else zeros
            squashed = cells[:, t].tanh()
            dh = grad_y[:, t] + handed_h
            dc = handed_c + dh * o * (1 - squashed * squashed)
            slopes = (i * (1 - i), f * (1 - f), 1 - g * g, o * (1 - o))
            parts = (dc * g, dc * before, dc * i, dh * squashed)
            da = torch.cat([part * slope for part, slope in zip(parts, slopes, strict=True)], 1)
            found.append(da)
            handed_h, handed_c = da @ weight_hh_l0, dc * f
        grad = torch.stack(found[::-1], 1)
        return gradients(grad, grad, x, y, weight_ih_l0, bias=self.bias)


class GRU(Recurrent):
    """A gated recurrent unit over a whole sequence (Cho et al. 2014), as torch.nn.GRU.

    As torch's with one layer and batch_first=True, whose first output y is. In each step, with
    a = weight_ih_l0 x_t + bias_ih_l0 and b = weight_hh_l0 h_{t-1} + bias_hh_l0, each in three parts:
        r = sigmoid(a_0 + b_0);  z = sigmoid(a_1 + b_1);  n = tanh(a_2 + r b_2);
        h_t = (1 - z) n + z h_{t-1};  y_t = h_t,
    with h_0 = 0 before the first step. Backward, from the last step to the first, with dh the gradient of y_t
    plus what step t + 1 hands back:
        dn = dh (1 - z) (1 - n^2);  dz = dh (h_{t-1} - n) z (1 - z);  dr = dn b_2 r (1 - r);
        da = (dr, dz, dn);  db = (dr, dz, dn r);  handed to step t - 1:  weight_hh_l0^T db + dh z.
    The gradients of the parameters are sums over all steps.

    x: (N, T, I); y: (N, T, H), H = hidden_size; weight_ih_l0: (3H, I), weight_hh_l0: (3H, H), biases:
    (3H,), none if the field `bias` is false, all drawn from U(-k, k), k = 1 / sqrt(H), as torch's. Any
    floating dtype. input_size may be left out: I is then the size of the last axis. Backward keeps x,
    y, the gates (N, T, 3H) and b_2 (N, T, H).

    Raises:
        GraphError: x does not have the axes N T I, one of T and I is 0, or I is not the stated input_size.

    >>> GRU(hidden_size=5).parameters({"x": Spec((2, 7, 3))})["weight_ih_l0"].shape
    (15, 3)
    """

    gates: ClassVar[int] = 3
    saves: ClassVar[tuple[str, ...]] = ("activations", "candidates")

    def forward(
        self,
        x: Tensor,
        weight_ih_l0: Tensor,
        weight_hh_l0: Tensor,
        bias_ih_l0: Tensor | None,
        bias_hh_l0: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs = x @ weight_ih_l0.t()
        inputs = inputs if bias_ih_l0 is None else inputs + bias_ih_l0
        h = x.new_zeros(x.shape[0], self.hidden_size)
        states, activations, candidates = [], [], []
        for t in range(x.shape[1]):
            from_h = h @ weight_hh_l0.t()
            from_h = from_h if bias_hh_l0 is None else from_h + bias_hh_l0
            a, b = inputs[:, t].chunk(3, 1), from_h.chunk(3, 1)
            r, z = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
            n = (a[2] + r * b[2]).tanh()
            h = (1 - z) * n + z * h
            states.append(h)
            activations.append(torch.cat((r, z, n), 1))
            candidates.append(b[2])
        return torch.stack(states, 1), torch.stack(activations, 1), torch.stack(candidates, 1)

    def backward(
        self,
        grad_y: Tensor,
        x: Tensor,
        y: Tensor,
        weight_ih_l0: Tensor,
        weight_hh_l0: Tensor,
        activations: Tensor,
        candidates: Tensor,
    ) -> Gradients:
        zeros = torch.zeros_like(grad_y[:, 0])
        handed = zeros
        of_inputs: list[Tensor] = []
        of_states: list[Tensor] = []
        for t in reversed(range(x.shape[1])):
            r, z, n = activations[:, t].chunk(3, 1)
            before = y[:, t - 1] if t else zeros
            dh = grad_y[:, t] + handed
            dn = dh * (1 - z) * (1 - n * n)
            dz = dh * (before - n) * z * (1 - z)
            dr = dn * candidates[:, t] * r * (1 - r)
            of_inputs.append(torch.cat((dr, dz, dn), 1))
            of_states.append(torch.cat((dr, dz, dn * r), 1))
            handed = of_states[-1] @ weight_hh_l0 + dh * z
        grad_i, grad_h = torch.stack(of_inputs[::-1], 1), torch.stack(of_states[::-1], 1)
        return gradients(grad_i, grad_h, x, y, weight_ih_l0, bias=self.bias)


def gradients(
    grad_i: Tensor, grad_h: Tensor, x: Tensor, y: Tensor, weight_ih_l0: Tensor, *, bias: bool
) -> Gradients:
    """Return the gradients of x and the parameters from those of the two linear maps, both (N, T, rows)."""
    rows, later = grad_i.flatten(0, 1), grad_h[:, 1:].flatten(0, 1)
    return (
        grad_i @ weight_ih_l0,
        rows.t() @ x.flatten(0, 1),
        later.t() @ y[:, :-1].flatten(0, 1),
        rows.sum(0) if bias else None,
        grad_h.sum((0, 1)) if bias else None,
    )

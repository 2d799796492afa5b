"""The lstm of oneDNN against torch.nn.LSTM, in float32, in which the conformance kit checks values only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from graphnet.builtin.kernels.onednn import OneDNNLSTM, onednn_lstm, onednn_lstm_backward
from graphnet.builtin.layers.recurrent import LSTM
from graphnet.sdk import Site, Spec

SIZES = [(3, 7, 5, 6), (1, 1, 1, 1), (17, 2, 33, 20)]


def kernel_for(n: int, t: int, features: int, hidden: int, *, bias: bool = True) -> OneDNNLSTM:
    layer = LSTM(hidden_size=hidden, bias=bias)
    site = Site((layer,), {"x": Spec((n, t, features))}, torch.device("cpu"))
    kernel = OneDNNLSTM.match(site)
    if kernel is None:
        pytest.skip("torch has no lstm of oneDNN on this machine")
    return kernel


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n", "t", "features", "hidden"), SIZES)
def test_results_and_gradients_are_those_of_torch(
    n: int, t: int, features: int, hidden: int, bias: bool
) -> None:
    kernel = kernel_for(n, t, features, hidden, bias=bias)
    torch.manual_seed(0)
    module = torch.nn.LSTM(features, hidden, bias=bias, batch_first=True)
    x = torch.randn(t, n, features).transpose(0, 1).requires_grad_()  # not contiguous
    expected, _ = module(x)
    grad_y = torch.randn_like(expected)
    expected.backward(grad_y)
    ih, hh, *biases = (parameter.detach() for parameter in module.parameters())
    given: tuple[Any, ...] = (x.detach(), ih, hh, *(biases or (None, None)))
    y, record, cells = kernel.forward(*given)
    torch.testing.assert_close(y, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(kernel.inference(*given), y)
    found = kernel.backward(grad_y, given[0], y, ih, hh, record, cells)
    true = [x.grad, *(parameter.grad for parameter in module.parameters())]
    for gradient, one in zip(found, true, strict=False):
        torch.testing.assert_close(gradient, one, rtol=1e-4, atol=1e-5)
    assert [gradient is None for gradient in found[3:]] == [not bias] * 2


@pytest.mark.parametrize(("n", "t", "features", "hidden"), SIZES)
def test_compilers_are_told_the_true_shapes_of_both_operators(
    n: int, t: int, features: int, hidden: int
) -> None:
    kernel = kernel_for(n, t, features, hidden)
    x = torch.randn(n, t, features)
    ih, hh = torch.randn(4 * hidden, features), torch.randn(4 * hidden, hidden)
    biases = torch.randn(4 * hidden), torch.randn(4 * hidden)

    def described(results: tuple[Tensor, ...]) -> list[tuple[Any, ...]]:
        return [(tuple(y.shape), y.stride(), y.dtype) for y in results]

    def check(operator: Any, *arguments: Any) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = operator(*arguments)
        empty = [a.to("meta") if isinstance(a, Tensor) else a for a in arguments]
        assert described(operator(*empty)) == described(results)
        return results

    y, workspace, cell = check(onednn_lstm, x, ih, hh, *biases, kernel.workspace)
    assert check(onednn_lstm, x, ih, hh, *biases, 0)[1].numel() == 0
    check(onednn_lstm_backward, torch.ones_like(y), x, y, ih, hh, workspace, cell, True)

"""Costs, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from graphnet.builtin import Conv2d, ReLU
from graphnet.graph import bind_inputs
from graphnet.sdk import Spec
from graphnet.testing import observed_cost, run_checks
from tests.support.right import Linear


def test_linear_layer_counts_two_for_each_multiply_add() -> None:
    layer = Linear(out_features=3)
    specs = bind_inputs(layer, [Spec((4, 5))], torch.float32).specs
    cost = observed_cost(layer, specs)
    assert cost.forward.flops == 2 * 4 * 5 * 3 + 4 * 3  # the product, and the bias
    assert cost.forward.bytes_read == 4 * (4 * 5 + 3 * 5 + 3)
    assert cost.forward.bytes_written == 4 * 4 * 3
    assert cost.backward is not None
    assert cost.backward.flops == 2 * (2 * 4 * 5 * 3) + 4 * 3  # two products, and the bias's sum
    assert cost.backward.bytes_written == 4 * (4 * 5 + 3 * 5 + 3)


def test_convolution_counts_its_products_and_the_adds_of_fold() -> None:
    layer = Conv2d(out_channels=6, kernel_size=3, padding=1, bias=False)
    cost = observed_cost(layer, bind_inputs(layer, [Spec((2, 4, 5, 5))], torch.float32).specs)
    product = 2 * 2 * 6 * (4 * 9) * 25
    assert cost.forward.flops == product
    assert cost.backward is not None
    assert product * 2 <= cost.backward.flops <= product * 2 + 2 * 2 * 4 * 9 * 25 + 2 * 6 * 36


def test_elementwise_layer_counts_one_for_each_element() -> None:
    cost = observed_cost(ReLU(), {"x": Spec((3, 7), torch.float64)})
    assert (cost.forward.flops, cost.forward.bytes_read) == (21, 168)


@pytest.mark.parametrize(
    ("factor", "fine"), [(1.0, True), (1.08, True), (0.92, True), (1.15, False)]
)
def test_declared_cost_may_be_ten_percent_off(factor: float, fine: bool) -> None:
    class Stated(Linear):
        """x weight^T + bias."""

        def cost(self, specs):
            products = 2 * specs["x"].numel * self.out_features
            sums = specs["x"].shape[0] * self.out_features if self.bias else 0
            return {"forward": factor * (products + sums)}

    report = run_checks(Stated, [(Stated(out_features=3), [(20, 5)])])
    assert ("cost" in {row.check for row in report.failures}) is not fine

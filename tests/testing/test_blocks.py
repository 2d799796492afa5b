"""The kit sees what kernels for blocks of pixels do to the blocks themselves."""

from __future__ import annotations

from torch import Tensor

from graphnet.builtin import Conv2d
from graphnet.builtin.kernels.patch.products import PatchConv2d, matrix_of
from graphnet.sdk import Gradients
from graphnet.testing import CHECKS, Sample, run_checks

SAMPLES = [Sample(Conv2d(out_channels=3, kernel_size=2, stride=2), [(2, 4, 4, 6)])]
FAST = [check for check in CHECKS if check.name != "compiles" and not check.slow]


class Viewing(PatchConv2d):
    """conv2d, which needs contiguous blocks."""

    def product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False
    ) -> Tensor:
        w = matrix_of(weight).t()
        y = self.affine(x.view(-1, w.shape[0]), w, bias, relu=relu)
        return y.view(*x.shape[:-3], -1)


class Writing(PatchConv2d):
    """conv2d, which writes to the blocks that it is given."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x.mul_(1.0)
        return self.product(x, weight, bias)

    def backward(
        self, grad_y: Tensor, x: Tensor, weight: Tensor, wanted: frozenset[str]
    ) -> Gradients:
        x.mul_(1.0)
        return self.gradients(grad_y, x, weight, wanted)


def failed(kernel: type[PatchConv2d]) -> set[str]:
    return {row.check for row in run_checks(kernel, SAMPLES, checks=FAST).failures}


def test_kernel_for_blocks_passes() -> None:
    assert failed(PatchConv2d) == set()


def test_kernel_that_needs_contiguous_blocks_is_found() -> None:
    assert {"noncontiguous", "channels_last"} <= failed(Viewing)


def test_kernel_that_writes_to_its_blocks_is_found() -> None:
    assert {"forward_pure", "backward_pure"} <= failed(Writing)

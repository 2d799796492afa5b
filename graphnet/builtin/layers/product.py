"""Matmul: the matrix product of two tensors, forward and backward."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from graphnet.errors import GraphError
from graphnet.sdk import Layer, Precision


class Matmul(Layer):
    """The matrix products of the last two axes of two tensors, as torch.matmul.

    y = x other, for each place of the axes before them, which are broadcast as in torch. With g the gradient
    of y: dx = g other^T;  dother = x^T g, each summed over the axes along which that input was broadcast.
    x: (..., M, K); other: (..., K, N); y: (..., M, N). Backward keeps both.

    Raises:
        GraphError: an input has less than two axes, or the shapes do not fit each other.

    >>> Matmul().forward(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]))
    tensor([[11.]])
    """

    precision: ClassVar[Precision] = "compute"

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit, which cannot guess shapes that fit."""
        return [
            (cls(), [(2, 3, 4), (2, 4, 5)]),
            (cls(), [(2, 1, 3, 4), (5, 4, 2)]),
            (cls(), [(3, 2), (2, 2, 3)]),
        ]

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        pairs = zip(reversed(x.shape[:-2]), reversed(other.shape[:-2]), strict=False)
        fits = min(x.ndim, other.ndim) >= 2 and x.shape[-1] == other.shape[-2]
        if not fits or any(m != n and 1 not in (m, n) for m, n in pairs):
            raise GraphError(
                f"expected inputs ... x M x K and ... x K x N, whose first axes are equal or 1, got the "
                f"shapes {tuple(x.shape)} and {tuple(other.shape)}"
            )
        return x @ other

    def backward(
        self, grad_y: Tensor, x: Tensor, other: Tensor, wanted: frozenset[str]
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_x = (grad_y @ other.mT).sum_to_size(x.shape) if "x" in wanted else None
        grad_other = (x.mT @ grad_y).sum_to_size(other.shape) if "other" in wanted else None
        return grad_x, grad_other

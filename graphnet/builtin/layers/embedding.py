"""Embeddings: a trained vector for each token, and one for each position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from graphnet.errors import DescriptionError, GraphError, Problem
from graphnet.sdk import Layer, ParameterSpec, Precision, Spec, Specs


@dataclass(frozen=True, slots=True)
class NormalRows:
    """Initializer: draws from N(0, std^2); the row `zero` of the tensor is 0.

    >>> NormalRows(zero=0)(torch.empty(2, 3), torch.Generator())[0]
    tensor([0., 0., 0.])
    """

    std: float = 1.0
    zero: int | None = None

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        tensor.normal_(0.0, self.std, generator=generator)
        if self.zero is not None:
            tensor[self.zero] = 0.0
        return tensor


class Embedding(Layer):
    """The row of a table that each index names: y[..., :] = weight[indices[...]], as torch.nn.Embedding.

    With g the gradient of y: dweight[i] = the sum of g over all places with the index i. The row padding_idx
    starts at 0, and its gradient is 0, so it stays as it is.

    indices: (...), int64 or int32, from 0 to num_embeddings - 1, without a gradient; weight: (num_embeddings,
    embedding_dim), starts as N(0, 1); y: (..., embedding_dim), in the weight's dtype. Backward keeps indices.

    Raises:
        DescriptionError: padding_idx is no row of the table.
        GraphError: indices are not int64 or int32.

    >>> layer = Embedding(num_embeddings=3, embedding_dim=2)
    >>> layer.forward(torch.tensor([2, 0]), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    tensor([[5., 6.],
            [1., 2.]])
    """

    nondifferentiable: ClassVar[tuple[str, ...]] = ("indices",)
    num_embeddings: PositiveInt
    embedding_dim: PositiveInt
    padding_idx: int | None = None

    def __post_init__(self) -> None:
        rows, row = self.num_embeddings, self.padding_idx
        if row is not None and not -rows <= row < rows:
            message = f"expected a row of the table, -{rows} to {rows - 1}, found {row}"
            raise DescriptionError([Problem(message, "padding_idx")])

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[Any]]]:
        """Samples for the conformance kit, which draws no integers.

        The padding is not among the tokens: its gradient is 0 on purpose, which is not the derivative.
        """
        tokens = torch.tensor([[3, 0, 3], [1, 4, 0]])
        return [
            (cls(num_embeddings=5, embedding_dim=3), [tokens]),
            (cls(num_embeddings=5, embedding_dim=2, padding_idx=-3), [tokens[1].int()]),
        ]

    @property
    def padding(self) -> int | None:
        """`padding_idx`, counted from the first row."""
        return None if self.padding_idx is None else self.padding_idx % self.num_embeddings

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        if specs["indices"].dtype not in (torch.int64, torch.int32):
            raise GraphError(
                f"expected indices of int64 or int32, got {specs['indices']}. State the dtype of the model's "
                f"input: input: {{shape: [time], dtype: int64}}"
            )
        shape = (self.num_embeddings, self.embedding_dim)
        return {"weight": ParameterSpec(shape, NormalRows(zero=self.padding))}

    def forward(self, indices: Tensor, weight: Tensor) -> Tensor:
        rows = weight.index_select(0, indices.reshape(-1))
        return rows.view(*indices.shape, weight.shape[1])

    def backward(self, grad_y: Tensor, indices: Tensor) -> tuple[None, Tensor]:
        flat = indices.reshape(-1)
        rows = grad_y.reshape(flat.shape[0], self.embedding_dim)
        if self.padding is not None:
            rows = rows.masked_fill((flat == self.padding)[:, None], 0)
        table = rows.new_zeros(self.num_embeddings, self.embedding_dim)
        return None, table.index_add_(0, flat, rows)


class PositionEmbedding(Layer):
    """Adds a trained vector for each position: y = x + weight[:T].

    The learned positions of Vaswani et al. 2017, section 3.5, and of GPT-2. dx = g, the gradient of y;
    dweight[t] = the sum of g over the batch at position t, 0 from T on.
    x, y: (N, T, D) with T at most max_length; weight: (max_length, D), starts as N(0, 0.02^2), as in GPT-2.
    Backward keeps no tensor.

    Raises:
        GraphError: x does not have the axes N T D, or more than max_length positions.

    >>> PositionEmbedding(max_length=8).parameters({"x": Spec((2, 5, 3))})["weight"].shape
    (8, 3)
    """

    precision: ClassVar[Precision] = "follow"
    max_length: PositiveInt

    @classmethod
    def samples(cls) -> list[tuple[Layer, list[tuple[int, ...]]]]:
        """Samples for the conformance kit: shorter than max_length, and as long."""
        return [(cls(max_length=5), [(2, 3, 4)]), (cls(max_length=3), [(3, 3, 2)])]

    def parameters(self, specs: Specs) -> dict[str, ParameterSpec | None]:
        x: Spec = specs["x"]
        if len(x.shape) != 3 or x.shape[1] > self.max_length:
            raise GraphError(
                f"expected an input N x T x D with T at most max_length ({self.max_length}), got {x}"
            )
        return {"weight": ParameterSpec((self.max_length, x.shape[2]), NormalRows(std=0.02))}

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return x + weight[: x.shape[1]]

    def backward(self, grad_y: Tensor, specs: Specs) -> tuple[Tensor, Tensor]:
        table = grad_y.new_zeros(specs["weight"].shape)
        table[: grad_y.shape[1]] = grad_y.sum(0)
        return grad_y, table

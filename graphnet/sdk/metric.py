"""Metric: a number that says how good predictions are, from any number of batches."""

from __future__ import annotations

import inspect
from typing import ClassVar

import torch
from torch import Tensor

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition


class Metric(Definition):
    """Measures each sample of a batch, and combines the results of all batches into one number.

    A subclass says in `higher_is_better` whether a larger number is a better one, and defines `measure`. The
    number does not depend on how the samples are divided into batches. Annotated fields are configuration,
    which a training file sets.

    Attributes:
        higher_is_better: whether a larger number is a better one; a subclass must say so.

    >>> class Within(Metric):
    ...     '''The share of pixels whose error is at most `bound`.'''
    ...
    ...     higher_is_better = True
    ...     bound: float = 0.1
    ...
    ...     def measure(self, prediction, target):
    ...         close = (prediction - target).abs() <= self.bound
    ...         return close.double().mean(dim=(1, 2, 3))
    >>> Within(bound=0.5)(torch.zeros(2, 1, 1, 2), torch.tensor([[[[0.4, 0.6]]], [[[0.0, 0.1]]]]))
    0.75
    """

    higher_is_better: ClassVar[bool]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.measure is Metric.measure:
            return
        taken = tuple(inspect.signature(cls.measure).parameters)[1:]
        if taken != ("prediction", "target"):
            raise ContractError(
                f"{cls.__name__}.measure must take prediction and target, takes "
                f"{', '.join(taken) or 'nothing'}"
            )
        if not isinstance(getattr(cls, "higher_is_better", None), bool):
            raise ContractError(
                f"{cls.__name__} must say `higher_is_better = True` or False, without an annotation"
            )

    def measure(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Measure each sample of a batch.

        Args:
            prediction, target: a batch each, (N, ...), floating point; images lie in 0..1.

        Returns:
            One row for each sample, (N,) or (N, k), on the device of the prediction.
        """
        raise ContractError(f"{type(self).__name__} defines no measure(prediction, target)")

    def combine(self, rows: Tensor) -> float:
        """Make one number of the rows of all samples, (M,) or (M, k); by default their mean.

        >>> class RootMeanSquare(Metric):
        ...     higher_is_better = False
        ...
        ...     def measure(self, prediction, target):
        ...         return (prediction - target).square().mean(dim=1)
        ...
        ...     def combine(self, rows):
        ...         return float(rows.mean().sqrt())
        >>> RootMeanSquare()(torch.zeros(2, 1), torch.tensor([[1.0], [7.0]]))
        5.0
        """
        return float(rows.mean())

    def rows(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return what `measure` returns, and check its shape.

        Raises:
            ContractError: it is no tensor with one row for each sample.

        >>> class Off(Metric):
        ...     higher_is_better = False
        ...
        ...     def measure(self, prediction, target):
        ...         return (prediction != target).double()
        >>> Off().rows(torch.zeros(2), torch.tensor([0.0, 1.0])).tolist()
        [0.0, 1.0]
        """
        rows = self.measure(prediction, target)
        if not isinstance(rows, Tensor) or not rows.ndim or len(rows) != len(prediction):
            found = (
                f"shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            )
            raise ContractError(
                f"{type(self).__name__}.measure must return a row for each of the {len(prediction)} "
                f"samples, a tensor ({len(prediction)},) or ({len(prediction)}, k); found {found}"
            )
        return rows

    def __call__(self, prediction: Tensor, target: Tensor) -> float:
        """The number of all samples, given as one batch."""
        with torch.no_grad():
            return self.combine(self.rows(prediction, target))

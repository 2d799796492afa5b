"""Sequential: eager modules that run one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphnet.graph import as_tuple
from graphnet.nn.module import Module, Pair
from graphnet.sdk import check_tensors


class Sequential(Module):
    """Runs modules one after the other; the same module may occur more than once.

    >>> from graphnet.nn import Conv2d, ReLU
    >>> net = Sequential(Conv2d(3, 8, kernel_size=1), ReLU(), Conv2d(8, 1, kernel_size=1))
    >>> net(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 1, 4, 4])
    >>> net.backward(torch.ones(1, 1, 4, 4)).shape
    torch.Size([1, 3, 4, 4])
    """

    def __init__(self, *modules: Module) -> None:
        self.modules = modules
        self._context = None

    def param(self) -> list[Pair]:
        """Return the pairs of all modules in their order; a shared parameter occurs once."""
        pairs = {id(pair[0]): pair for module in self.modules for pair in module.param()}
        return list(pairs.values())

    def run(self, inputs: Sequence[Tensor]) -> tuple[Any, Any]:
        check_tensors(inputs, repr(self))
        contexts = []
        value: Any = inputs[0] if len(inputs) == 1 else tuple(inputs)
        for module in self.modules:
            value, context = module.run(as_tuple(value))
            contexts.append(context)
        return value, contexts

    def run_backward(
        self, context: Any, grad_outputs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        gradients = tuple(grad_outputs)
        for module, its in zip(reversed(self.modules), reversed(context), strict=True):
            gradients = module.run_backward(its, gradients)
        return gradients

    def infer(self, inputs: Sequence[Tensor]) -> Any:
        check_tensors(inputs, repr(self))
        value: Any = inputs[0] if len(inputs) == 1 else tuple(inputs)
        for module in self.modules:
            value = module.infer(as_tuple(value))
        return value

    def _move(
        self, device: torch.device | None, dtype: torch.dtype | None, *, non_blocking: bool
    ) -> None:
        for module in self.modules:
            module._move(device, dtype, non_blocking=non_blocking)
        self._context = None

    @torch.no_grad()
    def update_parameters(self, lr: float) -> None:
        """Do one step of gradient descent, p -= lr * gradient, and set the gradients to zero."""
        for parameter, gradient in self.param():
            parameter.sub_(gradient, alpha=lr)
            gradient.zero_()

    def __getitem__(self, index: int) -> Module:
        return self.modules[index]

    def __len__(self) -> int:
        return len(self.modules)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.modules))})"

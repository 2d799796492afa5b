"""Sequential: eager modules that run one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from torch import Tensor

from graphnet.graph import as_tuple
from graphnet.nn.composite import Composite
from graphnet.nn.tree import Tree
from graphnet.sdk import check_tensors


class Sequential(Composite):
    """Runs modules one after the other; the same module may occur more than once.

    Args:
        modules: the modules, which get the names "0", "1" and so on, or one mapping from names to modules.

    >>> from graphnet.nn import Conv2d, ReLU
    >>> net = Sequential(Conv2d(3, 8, kernel_size=1), ReLU(), Conv2d(8, 1, kernel_size=1))
    >>> net(torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 1, 4, 4])
    >>> net.backward(torch.ones(1, 1, 4, 4)).shape
    torch.Size([1, 3, 4, 4])
    >>> net[:2]
    Sequential(
      (0): Conv2d(in_channels=3, out_channels=8, kernel_size=(1, 1))
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Tree | Mapping[str, Tree]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            super().__init__(modules[0])
            return
        super().__init__({str(i): module for i, module in enumerate(modules)})  # type: ignore[misc]

    def run(self, inputs: Sequence[Tensor]) -> tuple[Any, Any]:
        check_tensors(inputs, self.title)
        contexts = []
        value: Any = inputs[0] if len(inputs) == 1 else tuple(inputs)
        for module in self:
            value, context = module.run(as_tuple(value))
            contexts.append(context)
        return value, contexts

    def run_backward(
        self, context: Any, grad_outputs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        gradients = tuple(grad_outputs)
        for module, its in zip(reversed(list(self)), reversed(context), strict=True):
            gradients = module.run_backward(its, gradients)
        return gradients

    def infer(self, inputs: Sequence[Tensor]) -> Any:
        check_tensors(inputs, self.title)
        value: Any = inputs[0] if len(inputs) == 1 else tuple(inputs)
        for module in self:
            value = module.infer(as_tuple(value))
        return value

    def differentiable(self, count: int) -> list[bool]:
        return self[0].differentiable(count) if len(self) else [True] * count

    @overload
    def __getitem__(self, index: int) -> Tree: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Tree:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        modules = list(self)
        try:
            return modules[index]
        except (IndexError, TypeError):
            bounds = f"from {-len(modules)} to {len(modules) - 1}" if modules else "(there is none)"
            raise IndexError(
                f"{self.title}: expected an index {bounds} or a slice, got {index!r}"
            ) from None

    def __iter__(self) -> Iterator[Tree]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

"""Network: eager modules that read each other's outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from graphnet.errors import InputError, nearest
from graphnet.graph import as_tuple
from graphnet.nn.composite import Composite
from graphnet.nn.module import Module
from graphnet.nn.tree import Tree
from graphnet.sdk import check_tensors

Key = tuple[str, int]
"""A tensor: the node that makes it and its position among the outputs, or ("$input", 0)."""


class Network(Composite):
    """Modules that read each other's outputs by name, as the nodes of a model file do.

    Args:
        nodes: the module of each node by its name; `(module, "a", "b")` reads the outputs of the nodes a and
            b, "$x" is the input x, and "a.rest" is the output `rest` of a node with several. A module alone
            reads the node before it. The same module may occur more than once.
        inputs: the names of the inputs.
        outputs: the nodes whose outputs are returned; by default the first output of the last one.

    Raises:
        InputError: a node reads a name that no input and no node before it has, or nothing reads a node.

    >>> from graphnet import nn
    >>> net = Network({
    ...     "wide": nn.Conv2d(3, 4, 5, padding=2),
    ...     "narrow": (nn.Conv2d(3, 4, 3, padding=1), "$input"),
    ...     "both": (nn.Concat(), "wide", "narrow"),
    ... })
    >>> net(torch.ones(1, 3, 8, 8)).shape
    torch.Size([1, 8, 8, 8])
    >>> net.backward(torch.ones(1, 8, 8, 8)).shape
    torch.Size([1, 3, 8, 8])
    """

    def __init__(
        self,
        nodes: Mapping[str, Tree | tuple[Any, ...]],
        *,
        inputs: Sequence[str] = ("input",),
        outputs: Sequence[str] = (),
    ) -> None:
        parts: dict[str, tuple[Any, ...]] = {
            name: node if isinstance(node, tuple) and node else (node,)
            for name, node in nodes.items()
        }
        super().__init__({name: part[0] for name, part in parts.items()})
        if isinstance(inputs, str) or isinstance(outputs, str):
            raise InputError("Network: expected lists of names for inputs and outputs, got a text")
        self.inputs = tuple(inputs)
        self._reads: dict[str, tuple[Key, ...]] = {}
        previous = f"${self.inputs[0]}" if self.inputs else ""
        for name, (_, *read) in parts.items():
            self._reads[name] = tuple(self._find(r, f"node {name!r}") for r in read or [previous])
            previous = name
        if not parts:
            raise InputError("Network: expected one node or more, got none")
        self.outputs = tuple(outputs) or (previous,)
        self._returned = tuple(self._find(name, "outputs") for name in self.outputs)
        used = {key[0] for keys in (*self._reads.values(), self._returned) for key in keys}
        for name in (*self._modules, *(f"${name}" for name in self.inputs)):
            if name not in used:
                raise InputError(
                    f"Network: nothing reads {name!r}. Name it in a node or in outputs, or remove it."
                )

    def _find(self, name: object, where: str) -> Key:
        """The tensor that a node may read under a name; `_reads` holds the nodes before it."""
        known = {**{f"${n}": n for n in self.inputs}, **self._reads}
        if name in known:
            return str(name), 0
        node, _, output = str(name).rpartition(".")
        if node in self._reads and output in (names := output_names(self._modules[node])):
            return node, names.index(output)
        raise InputError(
            f"Network: {where} reads {name!r}, which is no input and no node before it. "
            f"{nearest(str(name), known)}"
        )

    def reads(self) -> dict[str, tuple[str, ...]]:
        """Return for each node the names that it reads."""
        return {name: tuple(map(self._text, keys)) for name, keys in self._reads.items()}

    def _text(self, key: Key) -> str:
        node, position = key
        return f"{node}.{output_names(self._modules[node])[position]}" if position else node

    def _line(self, name: str, module: Tree) -> str:
        return f"{super()._line(name, module)} of {', '.join(map(self._text, self._reads[name]))}"

    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs."""
        return self.inputs

    def run(self, inputs: Sequence[Tensor]) -> tuple[Any, Any]:
        contexts, values = {}, self._given(inputs)
        for name, module in self._modules.items():
            result, contexts[name] = module.run([values[key] for key in self._reads[name]])
            values.update({(name, i): one for i, one in enumerate(as_tuple(result))})
        made = {key: values[key] for key in values if key[0] in contexts}
        counts = {name: sum(key[0] == name for key in made) for name in contexts}
        return self._results(values), (contexts, counts)

    def infer(self, inputs: Sequence[Tensor]) -> Any:
        values = self._given(inputs)
        for name, module in self._modules.items():
            result = module.infer([values[key] for key in self._reads[name]])
            values.update({(name, i): one for i, one in enumerate(as_tuple(result))})
        return self._results(values)

    def _given(self, inputs: Sequence[Tensor]) -> dict[Key, Tensor]:
        check_tensors(inputs, self.title)
        if len(inputs) != len(self.inputs):
            raise InputError(
                f"{self.title}: expected {len(self.inputs)} inputs ({', '.join(self.inputs)}), got "
                f"{len(inputs)}"
            )
        return {(f"${name}", 0): one for name, one in zip(self.inputs, inputs, strict=True)}

    def _results(self, values: Mapping[Key, Tensor]) -> Any:
        outputs = tuple(values[key] for key in self._returned)
        return outputs[0] if len(outputs) == 1 else outputs

    def run_backward(
        self, context: Any, grad_outputs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        contexts, counts = context
        if len(grad_outputs) != len(self._returned):
            raise InputError(
                f"{self.title}.backward: expected {len(self._returned)} gradients "
                f"({', '.join(self.outputs)}), got {len(grad_outputs)}"
            )
        sums: dict[Key, Tensor] = {}

        def add(key: Key, gradient: Tensor | None) -> None:
            if gradient is not None:
                sums[key] = sums[key] + gradient if key in sums else gradient

        for key, gradient in zip(self._returned, grad_outputs, strict=True):
            add(key, gradient)
        for name, module in reversed(self._modules.items()):
            wanted = [sums.pop((name, i), None) for i in range(counts[name])]
            if all(gradient is None for gradient in wanted):
                continue
            found = iter(module.run_backward(contexts[name], wanted))
            keys = self._reads[name]
            for key, has_one in zip(keys, module.differentiable(len(keys)), strict=True):
                if has_one:
                    add(key, next(found))
        names = [f"${name}" for name in self.inputs]
        kept = zip(names, self.differentiable(len(names)), strict=True)
        return tuple(sums.get((name, 0)) for name, has_one in kept if has_one)

    def differentiable(self, count: int) -> list[bool]:
        through: set[str] = set()  # the inputs that some node has a gradient for
        for name, module in self._modules.items():
            keys = self._reads[name]
            flags = module.differentiable(len(keys))
            through.update(key[0] for key, flag in zip(keys, flags, strict=True) if flag)
        return [f"${name}" in through for name in self.inputs]


def output_names(module: Tree) -> tuple[str, ...]:
    """Return the names of a module's outputs: those of its layer, or of the last module inside."""
    match module:
        case Network():
            return module.outputs
        case Composite():
            inside = list(module.children())
            return output_names(inside[-1]) if inside else ("y",)
        case Module():
            return module.layer.outputs
    return ("y",)

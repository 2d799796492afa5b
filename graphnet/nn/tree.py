"""Tree: what all modules have in common with torch's: names of parameters, state dicts, modes, printing.

A leaf has parameters and states; any other module has modules by name. A name such as "0.conv.weight" is the
path from the root to a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from graphnet.errors import InputError, nearest
from graphnet.nn.placement import Placed
from graphnet.sdk import unreadable

Pair = tuple[Tensor, Tensor]
"""A parameter and its accumulated gradient, of the same shape and dtype."""


class LoadedKeys(NamedTuple):
    """What `load_state_dict` returns: the names without a tensor, and the tensors without a name.

    >>> LoadedKeys([], [])
    <All keys matched successfully>
    """

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"LoadedKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"
        )


class Tree(Placed):
    """Base of modules: a module and those inside of it, with the names, modes and state dicts of torch.

    Attributes:
        training: whether forward is that of training; `train` and `eval` change it.
    """

    training = True
    _pairs: dict[str, Pair]
    _states: dict[str, Tensor]
    _modules: dict[str, Tree]
    _context: Any = None

    # -- the paper's interface ----------------------------------------------------------------------

    def __call__(self, *inputs: Tensor) -> Any:
        return self.forward(*inputs)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Any:
        """Return the output, or a tuple of several; save the tensors that `backward` needs.

        In evaluation mode it computes what `predict` computes, and saves nothing. Raises InputError if the
        inputs do not fit the layer.
        """
        outputs, self._context = self.run(inputs)
        return outputs

    @torch.no_grad()
    def backward(self, *grad_outputs: Tensor | None) -> Any:
        """Return the gradient of the input, or a tuple for several, and add the parameters' gradients.

        Args:
            grad_outputs: the gradients of the outputs of the last forward; a loss may omit it: then it is 1.

        Raises:
            InputError: there was no forward, or it was in evaluation mode; or a gradient does not fit.
        """
        if self._context is None:
            raise InputError(f"{self.title}: call forward before backward")
        gradients = self.run_backward(self._context, grad_outputs)
        return gradients[0] if len(gradients) == 1 else gradients

    def predict(self, *inputs: Tensor) -> Any:
        """Return the outputs for inference: nothing is saved, and states do not change."""
        with torch.no_grad():
            return self.infer(inputs)

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Set every parameter's gradient to zero."""
        for _, gradient in self.param():
            gradient.zero_()

    # A subclass defines these four.

    def run(self, inputs: Sequence[Tensor]) -> tuple[Any, Any]:
        """Return the outputs, and the context that `run_backward` needs."""
        raise NotImplementedError

    def run_backward(
        self, context: Any, grad_outputs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs that have one, and add the gradients of the parameters."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[Tensor]) -> Any:
        """Return the outputs for inference."""
        raise NotImplementedError

    def differentiable(self, count: int) -> list[bool]:
        """Return for each of so many inputs whether `run_backward` returns a gradient."""
        raise NotImplementedError

    # -- names ------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Tree]]:
        """Yield this module and all inside, with their names; a module that is used twice occurs once."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self) -> Iterator[Tree]:
        """Yield this module and all inside, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Tree]]:
        """Yield the modules directly inside, each once, with their names."""
        first = {id(module): name for name, module in reversed(self._modules.items())}
        return ((n, m) for n, m in self._modules.items() if first[id(m)] == n)

    def children(self) -> Iterator[Tree]:
        """Yield the modules directly inside, each once."""
        return (module for _, module in self.named_children())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters with their names, such as "0.weight"; a shared one occurs once.

        The gradient of each is its attribute `grad`. Raises InputError if a module has no parameters yet.
        """
        return iter([(name, pair[0]) for name, pair in self._named_pairs(prefix)])

    def parameters(self) -> Iterator[Tensor]:
        """Yield the parameters, each once; the gradient of each is its attribute `grad`."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield the states, such as a running mean, with their names."""
        found: dict[str, Tensor] = {}
        for path, module in self.named_modules(prefix):
            module._check_made()
            found.update({_join(path, name): state for name, state in module._states.items()})
        return iter(found.items())

    def buffers(self) -> Iterator[Tensor]:
        """Yield the states, such as a running mean."""
        return (state for _, state in self.named_buffers())

    def param(self) -> list[Pair]:
        """Return (parameter, gradient) pairs, each once; both tensors are only changed in place."""
        return [pair for _, pair in self._named_pairs("")]

    def _named_pairs(self, prefix: str) -> list[tuple[str, Pair]]:
        found: list[tuple[str, Pair]] = []
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            module._check_made()
            for name, pair in module._pairs.items():
                if id(pair[0]) not in seen:  # tied modules have the same parameters
                    seen.add(id(pair[0]))
                    attach(pair)
                    found.append((_join(path, name), pair))
        return found

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Tree]]:
        """Yield all modules with their names; a module that is used twice occurs twice."""
        yield prefix, self
        for name, module in self._modules.items():
            yield from module._walk(_join(prefix, name))

    def _check_made(self) -> None:
        """Raise InputError if the parameters and states do not exist yet."""

    # -- state dicts ------------------------------------------------------------------------------------

    def state_dict(self, *, prefix: str = "") -> dict[str, Tensor]:
        """Return the parameters and states by name; a module that is used twice has two names, as in torch.

        They are the module's own tensors, not copies. Raises InputError if a module has no parameters yet.
        """
        found: dict[str, Tensor] = {}
        for path, module in self._walk():
            module._check_made()
            own = {name: parameter for name, (parameter, _) in module._pairs.items()}
            for name, tensor in (own | module._states).items():
                found[prefix + _join(path, name)] = tensor
        return found

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> LoadedKeys:
        """Copy values into the parameters and states of these names. After an error, nothing has changed.

        Args:
            state_dict: tensors by name, as `state_dict` returns them here or in torch.
            strict: whether each name must have a tensor, and each tensor a name.

        Returns:
            missing_keys, the names without a tensor, and unexpected_keys, the tensors without a name.

        Raises:
            InputError: a tensor has another shape, or a value is not a tensor of real numbers; with `strict`,
                also if a name has no tensor or a tensor has no name. The error names all of them.
        """
        if not isinstance(state_dict, Mapping):
            raise InputError(
                f"{self.title}.load_state_dict: expected a mapping from names to tensors, got a "
                f"{type(state_dict).__name__}"
            )
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = [
            problem
            for name in own
            if name in state_dict
            if (problem := _misfit(name, own, state_dict))
        ]
        if strict:
            problems += [f"{name!r} is missing" for name in missing]
            problems += [f"{n!r} is unexpected. {nearest(str(n), own)}" for n in unexpected]
        if problems:
            raise InputError(
                f"{self.title}.load_state_dict: nothing was loaded.\n  " + "\n  ".join(problems)
            )
        for name, tensor in own.items():
            if name in state_dict:
                tensor.copy_(state_dict[name])
        return LoadedKeys(missing, unexpected)

    # -- modes ------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set this module and all inside to training mode, or to evaluation mode with `mode=False`.

        In evaluation mode, forward computes what inference computes: a norm uses its running statistics, and
        states do not change. It keeps nothing, so backward after it raises InputError.
        """
        if not isinstance(mode, bool):
            raise InputError(f"train: expected True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set this module and all inside to evaluation mode: `train(False)`."""
        return self.train(False)

    # -- copies, and other attributes ---------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """A copy keeps no tensors for backward: call its forward first."""
        return {**self.__dict__, "_context": None}

    def __getattr__(self, name: str) -> Any:
        """Return a module inside this one by its name."""
        inside = self.__dict__.get("_modules", {})
        if name in inside:
            return inside[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # -- printing ---------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """The name of the class, for messages."""
        return type(self).__name__

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the printed form of a module without modules."""
        return ""

    def _line(self, name: str, module: Tree) -> str:
        """Return the printed form of a module inside this one."""
        return f"({name}): {module!r}"

    def __repr__(self) -> str:
        if not self._modules:
            return f"{self.title}({self.extra_repr()})"
        lines = [self._line(name, module) for name, module in self._modules.items()]
        inside = "\n".join(lines).replace("\n", "\n  ")
        return f"{self.title}(\n  {inside}\n)"


def attach(pair: Pair) -> Tensor:
    """Return the gradient of a pair, and let it be the attribute `grad` of the parameter.

    Code for torch sets this attribute to None, which means zero, or to another tensor.
    """
    parameter, gradient = pair
    given = parameter.grad
    if given is not gradient:
        with torch.no_grad():
            gradient.zero_() if given is None else gradient.copy_(given)
        parameter.grad = gradient
    return gradient


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _misfit(name: str, own: Mapping[str, Tensor], given: Mapping[str, object]) -> str:
    """Return why a value cannot be copied into the tensor of its name; "" if it can."""
    value, expected = given[name], tuple(own[name].shape)
    if not isinstance(value, Tensor) or value.is_complex():
        found = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
        return f"{name!r}: expected a tensor of real numbers, got {found}"
    if problem := unreadable(value):
        return f"{name!r}: {problem}"
    if tuple(value.shape) != expected:
        return f"{name!r}: expected the shape {expected}, got {tuple(value.shape)}"
    return ""

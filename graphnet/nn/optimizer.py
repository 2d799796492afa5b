"""ModuleOptimizer: registered optimizers for eager modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphnet.errors import InputError
from graphnet.nn.arguments import Arguments
from graphnet.nn.tree import Pair, attach
from graphnet.sdk import Optimizer, Spec, rule_and_share, update_arguments


class ModuleOptimizer:
    """Base of the classes that are made from registered optimizers; the fields are the arguments.

    Args:
        params: parameters, from `module.parameters()`, or pairs of a parameter and its gradient, from
            `module.param()`.
        args, named: the fields of the optimizer.

    Attributes:
        lr: the learning rate, which may be set at any time.
        pairs: the parameters, each with its gradient.
        rule: the optimizer's definition.

    >>> from graphnet import nn
    >>> parameter, gradient = torch.ones(1), torch.ones(1)
    >>> nn.SGD([(parameter, gradient)], lr=0.5).step()
    >>> parameter
    tensor([0.5000])
    """

    arguments: ClassVar[Arguments]

    def __init__(self, params: Iterable[Pair | Tensor], *args: Any, **named: Any) -> None:
        title = type(self).__name__
        rule = self.arguments.made(title, self.arguments.fields(title, args, named))
        assert isinstance(rule, Optimizer)
        self.rule = rule
        self.lr = rule.lr
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise InputError(f"{title}: expected {_EXPECTED}, got a {type(params).__name__}")
        self.pairs = [_pair(title, one) for one in params]
        self._attached = [parameter.grad is gradient for parameter, gradient in self.pairs]
        self._states: list[dict[str, Tensor | None]] = []
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter from its accumulated gradient; the gradients are not changed.

        As in torch, a gradient that was assigned to `parameter.grad` is used, and a parameter whose `grad` is
        None stays as it is.
        """
        # The states are made in the first step, as in torch, since `.to()` may move the parameters before.
        if not self._states:
            self._states = [self._make_states(parameter) for parameter, _ in self.pairs]
        rows = zip(self.pairs, self._attached, self._states, strict=True)
        for (parameter, gradient), attached, states in rows:
            if attached and parameter.grad is None:
                continue
            if attached:
                attach((parameter, gradient))
            rule, share = rule_and_share(self.rule, Spec.of(parameter))
            named: dict[str, Any] = {"parameter": parameter, "grad": gradient, **states}
            options: dict[str, Any] = {"device": parameter.device}
            named["lr"] = torch.tensor(self.lr * share, dtype=parameter.dtype, **options)
            named["step"] = torch.tensor(self._steps, **options)
            rule.update(*update_arguments(rule, named))
        self._steps += 1

    @torch.inference_mode(
        mode=False
    )  # the tensors live longer than this call and are written later
    def _make_states(self, parameter: Tensor) -> dict[str, Tensor | None]:
        found: dict[str, Tensor | None] = {}
        spec = Spec.of(parameter)
        rule, _ = rule_and_share(self.rule, spec)
        for name, state in rule.states(spec).items():
            found[name] = None
            if state is not None:
                value = torch.empty(state.shape, dtype=state.dtype or parameter.dtype)
                found[name] = state.initializer(value, torch.default_generator).to(parameter.device)
        return found

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for _, gradient in self.pairs:
            gradient.zero_()

    def update_parameters(self) -> None:
        """Call `step`, then `zero_grad`, as the paper does at the end of each batch."""
        self.step()
        self.zero_grad()

    def __repr__(self) -> str:
        fields = {**self.rule.configuration(), "lr": self.lr}
        texts = (f"{name}={value!r}" for name, value in fields.items())
        return f"{type(self).__name__}({len(self.pairs)} parameters, {', '.join(texts)})"


_EXPECTED = "parameters or pairs, from module.parameters() or module.param()"


def _pair(title: str, one: object) -> Pair:
    match one:
        case Tensor(grad=Tensor() as gradient):
            return one, gradient
        case Tensor():
            raise InputError(
                f"{title}: a parameter of shape {tuple(one.shape)} has no gradient: expected {_EXPECTED}"
            )
        case (Tensor() as parameter, Tensor() as gradient):
            return parameter, gradient
        case (str(), Tensor() as parameter):  # from named_parameters()
            return _pair(title, parameter)
    advice = ". Make one optimizer for each group." if isinstance(one, dict) else ""
    raise InputError(f"{title}: expected {_EXPECTED}, got a {type(one).__name__}{advice}")

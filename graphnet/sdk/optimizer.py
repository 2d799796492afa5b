"""Optimizer: a rule that updates one parameter.

An Optimizer states, for one parameter, which tensors it keeps and how a step changes them. The pass `update`
adds one call of it for each parameter, in the order of the graph's parameters. Its method `update` writes in
place.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from graphnet.errors import ContractError, DescriptionError, Problem, nearest
from graphnet.sdk.definition import Definition
from graphnet.sdk.fields import Rate
from graphnet.sdk.spec import Spec, StateSpec


class Optimizer(Definition):
    """How one parameter is updated; a subclass defines `update` and, if it keeps tensors, `states`.

    Attributes:
        lr: the learning rate, 0 or more.
        arguments: the names of the arguments of `update`, read when the class is made.
        elementwise: whether `update` computes each element of the parameter and of its states, which have the
            parameter's shape, from the same element of the gradient and of these. Several processes can then
            divide the states (`shard: optimizer`). A subclass states it anew.

    >>> class SignDescent(Optimizer):
    ...     elementwise = True
    ...
    ...     def update(self, parameter, grad, lr):
    ...         parameter.sub_(lr * grad.sign())
    >>> weight = torch.tensor([1.0, 2.0])
    >>> SignDescent(lr=0.5).update(weight, torch.tensor([3.0, -3.0]), torch.tensor(0.5))
    >>> weight.tolist()
    [0.5, 2.5]
    >>> SignDescent.arguments
    ('parameter', 'grad', 'lr')
    """

    arguments: ClassVar[tuple[str, ...]]
    elementwise: ClassVar[bool] = False
    lr: Rate

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.elementwise = vars(cls).get("elementwise", False)
        if cls.update is not Optimizer.update:
            cls.arguments = tuple(inspect.signature(cls.update).parameters)[1:]
            if cls.arguments[:2] != ("parameter", "grad"):
                raise ContractError(
                    f"{cls.__name__}.update must take parameter and grad first, takes "
                    f"{', '.join(cls.arguments) or 'nothing'}"
                )

    def rule_for(self, parameter: Spec) -> Optimizer:
        """The optimizer of one parameter: this one, or another with an `lr` of its own.

        Args:
            parameter: the parameter's shape, dtype and device.

        >>> from dataclasses import replace
        >>> class Narrow(Optimizer):  # biases and scales learn ten times as fast
        ...     def rule_for(self, parameter):
        ...         return self if len(parameter.shape) > 1 else replace(self, lr=10 * self.lr)
        >>> Narrow(lr=0.5).rule_for(Spec((8,))).lr
        5.0
        """
        return self

    def states(self, parameter: Spec) -> Mapping[str, StateSpec | None]:
        """The tensors that are kept for one parameter.

        Args:
            parameter: the parameter's shape, dtype and device.

        Returns:
            The name that `update` gives a tensor -> its shape and initial value; None for an absent one.

        >>> class Momentum(Optimizer):
        ...     def states(self, parameter):
        ...         return {"velocity": StateSpec(parameter.shape)}
        ...
        ...     def update(self, parameter, grad, lr, velocity):
        ...         parameter.sub_(lr * velocity.mul_(0.9).add_(grad))
        >>> Momentum(lr=0.1).states(Spec((2, 3)))["velocity"].shape
        (2, 3)
        """
        return {}

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Write one parameter and its states in place. A subclass asks for arguments by name.

        Args:
            parameter: the parameter.
            grad: its gradient, of the same shape and dtype.
            lr: the learning rate, 0-dim, in the parameter's dtype.
            step: the number of steps before this one, 0-dim int64.
            others: its own states, by the names that `states` gives; None for an absent one.
        """
        raise ContractError(f"{type(self).__name__} defines no update(parameter, grad, ...)")


def rule_and_share(
    optimizer: Optimizer, parameter: Spec, what: str = "a parameter"
) -> tuple[Optimizer, float]:
    """The optimizer of one parameter, and the share of the common learning rate that is its own.

    Args:
        optimizer: the optimizer of all parameters.
        parameter: the parameter's shape, dtype and device.
        what: the parameter in an error.

    Raises:
        DescriptionError: the common learning rate is 0, and that of the parameter is not.

    >>> from graphnet.builtin import SGD
    >>> rule_and_share(SGD(lr=0.5), Spec((2,)))[1]
    1.0
    """
    own = optimizer.rule_for(parameter)
    if own.lr == optimizer.lr:
        return own, 1.0
    if optimizer.lr == 0.0:
        message = f"expected a learning rate above 0, because {what} has the rate {own.lr}"
        raise DescriptionError([Problem(message, "lr")])
    return own, own.lr / optimizer.lr


def update_arguments(optimizer: Optimizer, named: Mapping[str, Any]) -> tuple[Any, ...]:
    """What `update` asks for, in order, of the arguments by name.

    Raises:
        ContractError: `update` asks for an argument that is no state of the optimizer.

    >>> from graphnet.builtin import SGD
    >>> rule = SGD(lr=0.5)
    >>> len(update_arguments(rule, dict.fromkeys(rule.arguments))) == len(rule.arguments)
    True
    """
    for name in optimizer.arguments:
        if name not in named:
            raise ContractError(
                f"{type(optimizer).__name__}.update names {name!r}, which is no state of it. "
                f"{nearest(name, named)}"
            )
    return tuple(named[name] for name in optimizer.arguments)

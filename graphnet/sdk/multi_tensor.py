"""MultiTensorKernel: one call that does to many tensors what a rule does to one tensor.

A step has an update for each parameter, and in bfloat16 a cast. On a GPU, launching each of them takes longer
than running it; one call for all of them is one launch.

    class FusedLion(gn.MultiTensorKernel):
        \"""lion of all parameters in one launch.\"""

        replaces = Lion
        rule: Lion

        @classmethod
        def match(cls, rule, specs):
            return cls(rule=rule) if specs[0].device.type == "cuda" else None

        def run(self, parameters, grads, lr, exp_avgs):
            torch.ops.acme.fused_lion(parameters, grads, exp_avgs, lr, self.rule.betas)

    @gn.hookimpl
    def graphnet_kernels(register):
        register("acme/lion", FusedLion)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor

from graphnet.errors import ContractError
from graphnet.sdk.definition import Definition
from graphnet.sdk.intrinsics import Cast, Scaled
from graphnet.sdk.kernel import check_priority
from graphnet.sdk.spec import Spec

Tensors = tuple[Tensor, ...]
# What all calls are given alike; everything else is a call's own.
COMMON = ("lr", "step", "rate", "factor")


class MultiTensorKernel(Definition):
    """One call in the place of several calls with equal rules; a subclass defines `match` and `run`.

    Attributes:
        replaces: the rule's class, an Optimizer or one of the compiler's own in graphnet.sdk: Cast, Scaled,
            Follow, AddTo, Clear. A subclass of the rule's class is another rule.
        priority: of several kernels for one rule, the one with the highest priority is tried first.
        casts: whether `run` takes tensors that are narrower than those of the rule, and casts them. The plan
            then has no casts before it.
        skips: whether `run` takes one more argument, `finite`, with the default None. In float16 it is a
            0-dim bool; if it is False, `run` must write nothing. In other precisions it is not given. If
            `skips` is False, a step in float16 keeps copies of what the kernel writes.
        copies: whether `run` of an optimizer takes one more argument, `copies`, with the default None: a
            tuple with a tensor of a narrower dtype for each parameter, into which it writes the new parameter
            too. In mixed precision the next step then needs no casts.
        rule: the rule of all the calls.

    Raises:
        ContractError: when the class is made, if it replaces no rule, or `run` takes other arguments.

    >>> from graphnet.sdk import Clear
    >>> class ClearAll(MultiTensorKernel):
    ...     replaces = Clear
    ...     priority = 1
    ...     casts = False
    ...     skips = False
    ...     copies = False
    ...
    ...     @classmethod
    ...     def match(cls, rule, specs):
    ...         return cls(rule=rule)
    ...
    ...     def run(self, totals):
    ...         torch._foreach_zero_(totals)
    >>> totals = (torch.ones(2), torch.ones(3))
    >>> ClearAll(rule=Clear()).run(totals)
    >>> totals
    (tensor([0., 0.]), tensor([0., 0., 0.]))
    """

    replaces: ClassVar[type[Definition]]
    priority: ClassVar[int] = 0
    casts: ClassVar[bool] = False
    skips: ClassVar[bool] = False
    copies: ClassVar[bool] = False
    rule: Definition

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_priority(cls, cls.priority)
        if "replaces" in vars(cls):  # else a base that leaves it to its subclasses
            _check(cls)

    @classmethod
    def match(cls, rule: Any, specs: Sequence[Spec]) -> Self | None:
        """The kernel for a rule, or None to leave its calls as they are.

        Args:
            rule: the rule that the calls have in common, an instance of `replaces`.
            specs: the spec of the first tensor of each call, for an optimizer the parameter. Device and dtype
                are the same for all.
        """
        raise ContractError(f"{cls.__name__} defines no match(rule, specs)")

    def run(self, *args: Any) -> Tensors | None:
        """Do to several tensors what the rule's method does to one tensor.

        It takes the method's arguments in the same order. `lr`, `step`, `rate` and `factor` come as they are.
        Each other argument has its name in the plural, and is a tuple with a tensor for each call, or None
        for an absent state. While graphnet makes a plan, it calls `run` on tensors without data (device
        "meta"). Code that launches GPU kernels itself must therefore be a torch operator with a fake
        implementation.

        Returns:
            A tuple of tensors; None for updates, which write in place.
        """
        raise ContractError(f"{type(self).__name__} defines no run(...)")


def method_of(rule: type[Definition]) -> str:
    """The name of a rule's method: `update`, or `forward` of a rule that returns new tensors.

    >>> method_of(Cast)
    'forward'
    """
    return "forward" if issubclass(rule, (Cast, Scaled)) else "update"


@functools.cache
def arguments_of(rule: type[Definition]) -> tuple[str, ...]:
    """The names of the arguments that a rule's method asks for; empty if it has no such method.

    >>> arguments_of(Cast)
    ('x',)
    """
    method: Any = getattr(rule, method_of(rule), None)
    return () if method is None else tuple(inspect.signature(method).parameters)[1:]


def arguments_of_run(kernel: type[MultiTensorKernel]) -> tuple[str, ...]:
    """The names of what a kernel's `run` takes: what the rule's method takes, and what the kernel adds.

    >>> from graphnet.builtin.kernels.multi_tensor import FusedSGD
    >>> arguments_of_run(FusedSGD)
    ('parameter', 'grad', 'lr', 'step', 'momentum_buffer', 'finite')
    """
    added = (("finite", kernel.skips), ("copies", kernel.copies))
    return (*arguments_of(kernel.replaces), *(name for name, taken in added if taken))


def matched(
    kernel: type[MultiTensorKernel], rule: Definition, specs: Sequence[Spec]
) -> MultiTensorKernel | None:
    """Return what a kernel's `match` returns for a rule and the specs of its calls.

    Raises:
        ContractError: it returned neither a kernel nor None.

    >>> from graphnet.builtin.kernels.multi_tensor import FusedSGD
    >>> from graphnet.builtin import SGD
    >>> from graphnet.sdk import Spec
    >>> matched(FusedSGD, SGD(lr=0.1), [Spec((3,), torch.float64)]) is None  # it is for float32
    True
    """
    found: object = kernel.match(rule, specs)
    if found is not None and not isinstance(found, MultiTensorKernel):
        raise ContractError(
            f"{kernel.__name__}.match must return cls(rule=rule) or None, returned {found!r}"
        )
    return found


def _check(cls: type[MultiTensorKernel]) -> None:
    """Raise ContractError unless the class replaces a rule, and takes what that takes."""
    replaces: object = cls.replaces
    is_rule = isinstance(replaces, type) and issubclass(replaces, Definition)
    names = arguments_of(replaces) if is_rule else ()
    if not names:
        raise ContractError(
            f"{cls.__name__}.replaces must be the class of an optimizer, such as graphnet.SGD, or Cast, "
            f"Scaled, Follow, AddTo or Clear of graphnet.sdk; found {replaces!r}"
        )
    if cls.run is MultiTensorKernel.run:
        raise ContractError(f"{cls.__name__} defines no run(...)")
    more = arguments_of_run(cls)[len(names) :]
    expected = [*map(_plurals, names), *((name,) for name in more)]
    found = tuple(inspect.signature(cls.run).parameters)[1:]
    if len(found) != len(expected) or any(f not in e for f, e in zip(found, expected, strict=True)):
        raise ContractError(
            f"{cls.__name__}.run must take ({', '.join(e[0] for e in expected)}), as what it replaces takes "
            f"({', '.join(names)}) for one tensor; found ({', '.join(found)})"
        )


def _plurals(name: str) -> tuple[str, ...]:
    return (name,) if name in COMMON else (f"{name}s", f"{name[:-1]}ies", f"{name}es")

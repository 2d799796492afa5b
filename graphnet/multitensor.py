"""MultiTensorKernel: another way to do to many tensors what a rule does to one of them.

A step has an update for each parameter, and in bfloat16 a cast. On a GPU each of them takes longer to launch
than to run; one call for all of them is one launch.

    class FusedLion(gn.MultiTensorKernel):
        \"""lion of all parameters in one launch.\"""

        replaces = Lion
        rule: Lion

        @classmethod
        def match(cls, rule, specs):
            return cls(rule=rule) if specs[0].device.type == "cuda" else None

        def run(self, parameters, grads, lr, step, exp_avgs):
            acme.fused_lion(parameters, grads, exp_avgs, lr, self.rule.beta)

    @gn.hookimpl
    def graphnet_kernels(register):
        register("acme/lion", FusedLion)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor

from graphnet.definition import Definition
from graphnet.errors import ContractError
from graphnet.spec import Spec

Tensors = tuple[Tensor, ...]


class MultiTensorKernel(Definition):
    """One call in place of several that go by equal rules.

    replaces: the rule's class, an Optimizer or one of the compiler's own in graphnet.calls: Cast, Follow,
        AddTo, Clear. What is derived from it is another rule.
    casts: whether `run` takes tensors that are narrower than the rule would be given, and casts them: then
        the plan has no casts before it.
    """

    replaces: ClassVar[type[Definition]]
    casts: ClassVar[bool] = False
    rule: Definition

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        replaces = vars(cls).get("replaces")
        if replaces is not None and not (
            isinstance(replaces, type) and issubclass(replaces, Definition)
        ):
            raise ContractError(
                f"{cls.__name__}.replaces must be the class of a rule, such as graphnet.SGD; "
                f"found {replaces!r}"
            )

    @classmethod
    def match(cls, rule: Definition, specs: Sequence[Spec]) -> Self | None:
        """The kernel for a rule, or None to leave its calls as they are.

        `specs` are those of each call's first tensor, an optimizer's parameters; device and dtype are the
        same for all.
        """
        raise ContractError(f"{cls.__name__} defines no match(rule, specs)")

    def run(self, *args: Any) -> Tensors | None:
        """The rule's method for several tensors, by the names of its arguments.

        What all calls have in common, such as `lr` and `step`, comes as it is, everything else as a tuple
        with a tensor for each call; None stays None. Updates write in place and return nothing; a cast
        returns a tuple.
        """
        raise ContractError(f"{type(self).__name__} defines no run(...)")

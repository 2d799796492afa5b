"""Rule case: an optimizer, or a kernel for many tensors and the rule that it replaces, with parameters.

Several steps are run on parameters of different shapes: by the rule's method for one parameter after the
other, or by one `run` of the kernel.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import DescriptionError, blame
from graphnet.sdk import (
    COMMON,
    Cast,
    Definition,
    MultiTensorKernel,
    Optimizer,
    Spec,
    arguments_of,
    arguments_of_run,
    matched,
    method_of,
)
from graphnet.testing.check import Check, undisturbed
from graphnet.testing.draw import draw, generator
from graphnet.testing.outcome import CheckFailure, NoSample

CPU = torch.device("cpu")
_SHAPES = ((), (1,), (3,), (4, 3, 2, 2), (1500,), (2, 5, 7), (0,), (6, 9, 1, 1), (40, 30))
RATES = (
    0.05,
    0.025,
    0.1,
)  # of the steps 0, 1 and 2: no rule that is made here has one of them as `lr`

Own = dict[str, Tensor | None]
"""The arguments of one parameter's call by name; None for a state that is absent."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """The arguments of the calls of one rule: the common ones, and the own ones of each call."""

    common: dict[str, Tensor]
    own: list[Own]

    def leaves(self) -> dict[str, Tensor]:
        """Return all tensors by name and number."""
        numbered = {f"{n}[{i}]": t for i, own in enumerate(self.own) for n, t in own.items()}
        return {n: t for n, t in {**self.common, **numbered}.items() if t is not None}

    def double(self) -> Tensors:
        """Copy the tensors as float64; integers keep their dtype."""
        common = {n: _double(tensor) for n, tensor in self.common.items()}
        own = [{n: None if t is None else _double(t) for n, t in o.items()} for o in self.own]
        return Tensors(common, own)


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64, copy=True) if tensor.is_floating_point() else tensor.clone()


@dataclass(frozen=True)
class RuleCase:
    """A rule that is checked on parameters, or a kernel that replaces it.

    >>> from graphnet.builtin import SGD
    >>> RuleCase(SGD(lr=0.1)).method
    'update'
    """

    rule: Definition
    kernel: MultiTensorKernel | None = None
    device: torch.device = CPU
    untried: str | None = None  # the reason if it cannot run on this machine
    varied: bool = False  # whether the kit has changed a field of the author's rule

    def __str__(self) -> str:
        return (
            str(self.rule)
            if self.kernel is None
            else f"{type(self.kernel).__name__} of {self.rule}"
        )

    def excuse(self, check: Check[RuleCase]) -> str | None:
        """Return why a check does not apply; None if it applies."""
        if self.varied and check.name == "rule_compiles":
            return "torch.compile takes its time: it is tried on the rules as they are given"
        if self.untried or check.name == "rule_runs" or self.usable:
            return self.untried
        return "the rule does not run: see the check `rule_runs`"

    @functools.cached_property
    def usable(self) -> bool:
        """Whether a step runs at all; if not, only the check `rule_runs` reports it."""
        try:
            with undisturbed():
                self.step(self.drawn())
        except Exception:  # the check `rule_runs` reports it
            return False
        return True

    @property
    def method(self) -> str:
        return method_of(type(self.rule))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments of the rule's method."""
        return arguments_of(type(self.rule))

    def drawn(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        many: int = 1,
    ) -> Tensors:
        """Draw parameters of each of the rule's shapes, `many` times, with their initial states."""
        device = device or self.device
        own: list[Own] = []
        for number, shape in enumerate(self.shapes() * many):
            tensors: Own = {}
            for name in self.arguments:
                if name not in COMMON:
                    tensor = draw(shape, name, number).to(device, dtype)
                    tensors[name] = _last(tensor) if len(shape) == 4 else tensor
            own.append({**tensors, **self.states(shape, dtype, device)})
        common = {
            "lr": torch.tensor(RATES[0], dtype=dtype, device=device),
            "step": torch.tensor(0, device=device),
            "rate": torch.tensor(RATES[0], dtype=torch.float64, device=device),
            "factor": torch.tensor(RATES[0], device=device),
        }
        return Tensors({n: t for n, t in common.items() if n in self.arguments}, own)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes that this rule updates: an optimizer may leave some to another rule."""
        if not isinstance(self.rule, Optimizer):
            return _SHAPES
        rule = self.rule
        return tuple(shape for shape in _SHAPES if rule.rule_for(Spec(shape)) == rule)

    def states(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Own:
        """Make the initial states of a parameter of this shape, by name; None for states that it has not."""
        if not isinstance(self.rule, Optimizer):
            return {}
        made: Own = {}
        for name, spec in self.rule.states(Spec(shape, dtype, device)).items():
            made[name] = None
            if spec is not None:
                empty = torch.empty(spec.shape, dtype=spec.dtype or dtype)
                tensor = spec.initializer(empty, generator(name, 0)).to(device)
                made[name] = _last(tensor) if tensor.ndim == 4 else tensor
        return made

    def step(
        self,
        given: Tensors,
        finite: Tensor | None = None,
        copies: tuple[Tensor, ...] | None = None,
    ) -> list[Any]:
        """Run one step on all parameters, by the kernel, or by the rule for one after the other.

        Kernels that say so take `finite` and `copies`.
        """
        if self.kernel is None:
            function = getattr(self.rule, self.method)
            return [
                function(*(({**given.common, **own})[n] for n in self.arguments))
                for own in given.own
            ]
        columns: list[Any] = []
        for name in self.arguments:
            if name in given.common:
                columns.append(given.common[name])
            else:
                column = tuple(own[name] for own in given.own)
                columns.append(None if column[0] is None else column)
        added = {"finite": finite, "copies": copies}
        names = arguments_of_run(type(self.kernel))[len(self.arguments) :]
        returned = self.kernel.run(*columns, *(added[name] for name in names))
        return [None] * len(given.own) if returned is None else list(returned)

    def steps(
        self, given: Tensors, *, grads: Callable[[Tensor, int], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Run three steps, each with a new gradient; return all tensors and the last step's results."""
        made: list[Any] = []
        for number, rate in enumerate(RATES):
            for name, tensor in given.common.items():
                tensor.fill_(number if name == "step" else rate)
            for i, own in enumerate(given.own):
                grad = own.get("grad")
                if grad is not None:
                    fresh = draw(tuple(grad.shape), f"grad of step {number}", i).to(grad.device)
                    fresh = torch.empty_like(grad).copy_(fresh)
                    own["grad"] = fresh if grads is None else grads(fresh, i)
            made = self.step(given)
        results = {f"result[{i}]": t for i, t in enumerate(made) if isinstance(t, Tensor)}
        return {**given.leaves(), **results}


def _last(tensor: Tensor) -> Tensor:
    """Copy a tensor to channels_last, in which weights of convolutions are stored."""
    return tensor.contiguous(memory_format=torch.channels_last)


def rule_cases(
    target: Definition | type[Definition], samples: Sequence[Definition] | None = None
) -> tuple[RuleCase, ...]:
    """Make the cases of an optimizer, or of a kernel for rules; without samples, rules are generated.

    Raises NoSample if no rule can be made, CheckFailure if a kernel matches no rule on the CPU and the GPU.
    """
    cls = target if isinstance(target, type) else type(target)
    if issubclass(cls, MultiTensorKernel):
        if samples is None and isinstance(target, MultiTensorKernel):
            samples = (target.rule,)
        return _of_kernel(cls, samples or _rules(cls, cls.replaces))
    if samples is None:
        samples = (target,) if isinstance(target, Definition) else _rules(cls, cls)
    return tuple(RuleCase(rule) for rule in samples)


def _of_kernel(cls: type[MultiTensorKernel], rules: Sequence[Definition]) -> tuple[RuleCase, ...]:
    devices = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    found: list[RuleCase] = []
    for rule, device in itertools.product(rules, devices):
        kernel = kernel_for(cls, rule, torch.float32, device)
        if kernel is not None and not (found and found[-1].rule is rule):
            found.append(RuleCase(rule, kernel, device))
    if found:
        return tuple(found)
    if len(devices) == 1:
        excuse = "the kernel takes nothing on the CPU, and there is no CUDA device"
        return (RuleCase(rules[0], untried=excuse),)
    raise CheckFailure(
        f"expected {cls.__name__}.match to accept one of {len(rules)} rules, found that it returns None "
        f"for all. Give `samples`, a classmethod that returns rules that it is made for."
    )


def kernel_for(
    cls: type[MultiTensorKernel], rule: Definition, dtype: torch.dtype, device: torch.device
) -> MultiTensorKernel | None:
    with blame(f"{cls.__name__}: ", "match"):
        return matched(cls, rule, [Spec(s, dtype, device) for s in RuleCase(rule).shapes()])


def _rules(cls: type[Definition], replaces: type[Definition]) -> tuple[Definition, ...]:
    """Return the author's samples; else the rule with its defaults, and with one or two fields changed."""
    own = getattr(cls, "samples", None) or getattr(replaces, "samples", None)
    found = tuple(_generated(replaces) if own is None else own())
    if not found:
        raise NoSample(
            f"no {replaces.__name__} could be made for the checks. Give `samples`, a classmethod of "
            f"{cls.__name__} that returns some."
        )
    return found


def varied_rules(rules: Sequence[Definition]) -> tuple[Definition, ...]:
    """Make rules in which fields have values that none of these rules has, one field in each."""
    found: list[Definition] = []
    first = rules[0]
    for one in fields(first):  # type: ignore[arg-type]  # every definition is a dataclass
        now = getattr(first, one.name)
        other = _other(now)
        if other is None or any(getattr(rule, one.name) != now for rule in rules):
            continue
        for extra in ({}, *({n: v} for n, v in _free(first).items() if n != one.name)):
            try:
                found.append(type(first)(**{**first.configuration(), **extra, one.name: other}))
                break
            except DescriptionError:
                continue  # the value may need that of another field
    return tuple(found)


def _free(rule: Definition) -> dict[str, Any]:
    """Return another value for each field that may have one."""
    others = {name: _other(value) for name, value in rule.configuration().items()}
    return {name: value for name, value in others.items() if value is not None}


def _generated(rule: type[Definition]) -> Iterator[Definition]:
    given: dict[str, Any] = {"lr": 0.1} if issubclass(rule, Optimizer) else {}
    if rule is Cast:
        given = {"dtype": "bfloat16"}
    free: dict[str, Any] = {}
    for one in fields(rule):  # type: ignore[arg-type]  # every definition is a dataclass
        other = _other(one.default)
        if other is not None and one.name not in given and type(one.default) is not int:
            free[one.name] = other
    for count in range(3):
        for names in itertools.combinations(free, count):
            try:
                yield rule(**given, **{name: free[name] for name in names})
            except DescriptionError:
                continue  # these values do not fit together, or another field has no default


def _other(value: object) -> Any:
    """Return another value for a number, a boolean or a tuple of numbers; None for other values."""
    match value:
        case bool():
            return not value
        case float():
            return 0.25 if value != 0.25 else 0.5
        case tuple() if value and all(isinstance(one, float) for one in value):
            return tuple(0.25 + 0.125 * i for i in range(len(value)))
        case int():
            return value + 1
    return None

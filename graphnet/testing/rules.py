"""The kit's questions about optimizers, and about kernels that take many tensors at once.

Both are tried on a few parameters of different shapes over several steps: an optimizer by its `update` on one
after the other, a kernel by one `run` on all, beside the rule that it replaces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphnet.calls import Cast
from graphnet.definition import Definition
from graphnet.errors import DescriptionError, blame
from graphnet.multitensor import COMMON, MultiTensorKernel, arguments_of, matched
from graphnet.optim import Optimizer
from graphnet.spec import Spec
from graphnet.testing.case import draw, generator
from graphnet.testing.check import Check, CheckFailure, NotApplicable, check
from graphnet.testing.compare import expect_close, expect_same_bits, same_bits
from graphnet.testing.precision import unsynchronized
from graphnet.testing.purity import undrawn
from graphnet.testing.samples import NoSample
from graphnet.watch import operations_of

CPU, META = torch.device("cpu"), torch.device("meta")
_SHAPES = ((), (1,), (3,), (4, 3, 2, 2), (1500,), (2, 5, 7), (0,), (6, 9, 1, 1), (40, 30))
_RATES = (0.05, 0.025, 0.1)  # in step 0, 1, ...: none is the lr of a rule that is made here
_TOLERANCES = {
    torch.float32: 1e-5,
    torch.float64: 1e-12,
}  # of a kernel; bfloat16 is too coarse to tell

Own = dict[str, Tensor | None]
"""A call's own arguments by name; None for a state that is absent."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """What several calls by one rule are given: what they have in common, and what is each one's own."""

    common: dict[str, Tensor]
    own: list[Own]

    def leaves(self) -> dict[str, Tensor]:
        """All tensors by name and number."""
        numbered = {f"{n}[{i}]": t for i, own in enumerate(self.own) for n, t in own.items()}
        return {n: t for n, t in {**self.common, **numbered}.items() if t is not None}

    def double(self) -> Tensors:
        """The same numbers in float64; integers stay."""
        common = {n: _double(tensor) for n, tensor in self.common.items()}
        own = [{n: None if t is None else _double(t) for n, t in o.items()} for o in self.own]
        return Tensors(common, own)


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64, copy=True) if tensor.is_floating_point() else tensor.clone()


@dataclass(frozen=True)
class RuleCase:
    """A rule to be tried on parameters; by a kernel that replaces it, if there is one."""

    rule: Definition
    kernel: MultiTensorKernel | None = None
    device: torch.device = CPU
    skip: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            str(self.rule)
            if self.kernel is None
            else f"{type(self.kernel).__name__} of {self.rule}"
        )

    def excuse(self, check: Check) -> str | None:
        return self.skip.get(check.name)

    @property
    def method(self) -> str:
        return "forward" if isinstance(self.rule, Cast) else "update"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names that the rule's method asks for."""
        return arguments_of(type(self.rule))

    def drawn(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        many: int = 1,
    ) -> Tensors:
        """Parameters of the rule's shapes, `many` times over, with their states at the start."""
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
            "lr": torch.tensor(_RATES[0], dtype=dtype, device=device),
            "step": torch.tensor(0, device=device),
            "rate": torch.tensor(_RATES[0], dtype=torch.float64, device=device),
        }
        return Tensors({n: t for n, t in common.items() if n in self.arguments}, own)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of parameters that go by this rule: an optimizer may leave some to another."""
        if not isinstance(self.rule, Optimizer):
            return _SHAPES
        rule = self.rule
        return tuple(shape for shape in _SHAPES if rule.rule_for(Spec(shape)) == rule)

    def states(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Own:
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

    def step(self, given: Tensors) -> list[Any]:
        """One step on all of them: by the kernel, or by the rule on one after the other."""
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
        returned = self.kernel.run(*columns)
        return [None] * len(given.own) if returned is None else list(returned)

    def steps(
        self, given: Tensors, *, grads: Callable[[Tensor, int], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Some steps with a new gradient in each; what is left after them, and what the last one made."""
        made: list[Any] = []
        for number, rate in enumerate(_RATES):
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
    """As weights of convolutions are stored: in channels_last."""
    return tensor.contiguous(memory_format=torch.channels_last)


def rule_cases(
    target: Definition | type[Definition], samples: Sequence[Definition] | None = None
) -> tuple[RuleCase, ...]:
    """The cases of an optimizer, or of a kernel for rules: those given, its own `samples`, or generated ones.

    Raises NoSample where none can be made, CheckFailure for a kernel that takes none of them, on the CPU or
    on a GPU that is there.
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
        kernel = _kernel(cls, rule, torch.float32, device)
        if kernel is not None and not (found and found[-1].rule is rule):
            found.append(RuleCase(rule, kernel, device))
    if found:
        return tuple(found)
    if len(devices) == 1:
        excuse = "the kernel takes nothing on the CPU, and there is no CUDA device"
        skip = {check.name: excuse for check in RULE_CHECKS}
        return (RuleCase(rules[0], skip=skip),)
    raise CheckFailure(
        f"expected {cls.__name__}.match to accept one of {len(rules)} rules, found that it returns None "
        f"for all. Give `samples`, a classmethod that returns rules that it is made for."
    )


def _kernel(
    cls: type[MultiTensorKernel], rule: Definition, dtype: torch.dtype, device: torch.device
) -> MultiTensorKernel | None:
    with blame(f"{cls.__name__}: ", "match"):
        return matched(cls, rule, [Spec(s, dtype, device) for s in RuleCase(rule).shapes()])


def _rules(cls: type[Definition], replaces: type[Definition]) -> tuple[Definition, ...]:
    """The author's samples; or the rule by its defaults, and with one or two of its fields changed."""
    own = getattr(cls, "samples", None) or getattr(replaces, "samples", None)
    found = tuple(_generated(replaces) if own is None else own())
    if not found:
        raise NoSample(
            f"no {replaces.__name__} could be made for the checks. Give `samples`, a classmethod of "
            f"{cls.__name__} that returns some."
        )
    return found


def _generated(rule: type[Definition]) -> Iterator[Definition]:
    given: dict[str, Any] = {"lr": 0.1} if issubclass(rule, Optimizer) else {}
    if rule is Cast:
        given = {"dtype": "bfloat16"}
    free: dict[str, Any] = {}
    for one in fields(rule):  # type: ignore[arg-type]  # every definition is a dataclass
        other = _other(one.default)
        if other is not None and one.name not in given:
            free[one.name] = other
    for count in range(3):
        for names in itertools.combinations(free, count):
            try:
                yield rule(**given, **{name: free[name] for name in names})
            except DescriptionError:
                continue  # they do not go together, or there are others without a default


def _other(value: object) -> Any:
    """Another value for a field with this one, or None: of numbers, switches and tuples of numbers."""
    match value:
        case bool():
            return not value
        case float():
            return 0.25
        case tuple() if value and all(isinstance(one, float) for one in value):
            return tuple(0.25 + 0.125 * i for i in range(len(value)))
    return None


@check
def rule_runs(case: RuleCase) -> None:
    """An update asks for what there is, writes in place, and returns nothing; a cast returns each tensor."""
    rule = case.rule
    if not case.shapes():
        raise CheckFailure(
            f"expected rule_for to leave some parameters to {rule}, found that it leaves none"
        )
    if isinstance(rule, Optimizer):
        known = {"parameter", "grad", "lr", "step", *rule.states(Spec(case.shapes()[0]))}
        if unknown := [name for name in rule.arguments if name not in known]:
            raise CheckFailure(
                f"expected update to ask for parameter, grad, lr, step and its states, found {unknown[0]!r}. "
                f"Return it from states."
            )
    given = case.drawn()
    made = case.step(given)
    for i, result in enumerate(made):
        if (case.method == "update") != (result is None):
            raise CheckFailure(
                f"expected {'nothing' if case.method == 'update' else 'a tensor'} back for tensor {i}, found "
                f"{type(result).__name__}. Write the parameter and the states in place."
            )
    first = case.arguments[0]
    before, after = case.drawn().leaves(), given.leaves()
    if case.method == "update" and all(
        same_bits(after[name], before[name]) for name in before if name.startswith(f"{first}[")
    ):
        raise CheckFailure(
            f"expected a step to change {first!r}, found that none has changed. Write it in place: "
            f"`{first}.sub_(...)`, where `{first} = {first} - ...` only names something new."
        )


@check
def rule_writes(case: RuleCase) -> None:
    """A step writes the parameter and its states only, never a gradient or what all steps share."""
    given = case.drawn()
    first = case.arguments[0]
    states = case.states(case.shapes()[0], torch.float32, case.device)
    free = states.keys() | ({first} if case.method == "update" else set())
    watched = {n: t for n, t in given.leaves().items() if n.partition("[")[0] not in free}
    before = {name: tensor.clone() for name, tensor in watched.items()}
    case.step(given)
    expect_same_bits(
        watched,
        before,
        what="a step wrote to it",
        advice="Write to the parameter and the states only; copy what is to be changed.",
    )


@check
def rule_repeats(case: RuleCase) -> None:
    """The same steps from the same start give the same bits."""
    expect_same_bits(
        case.steps(case.drawn()),
        case.steps(case.drawn()),
        what="the same steps gave something else the second time",
        advice="Keep nothing outside of the states, and add up in one order.",
    )


@check
def rule_host_reads(case: RuleCase) -> None:
    """Nothing is read back to the host: steps are captured, and replayed with other numbers."""
    given = case.drawn()
    for operation in operations_of(lambda: case.step(given)):
        if "data_dependent_output" in operation.tags:
            raise CheckFailure(
                f"expected no number to be read back to the host, found {operation}. Compute with `lr` and "
                f"`step` as the 0-dim tensors that they are."
            )


@check
def rule_random(case: RuleCase) -> None:
    """The global random generators are not touched."""
    given = case.drawn()
    with undrawn("a step"):
        case.step(given)


@check
def rule_strides(case: RuleCase) -> None:
    """Gradients may come in any strides."""

    def crossed(grad: Tensor, number: int) -> Tensor:
        """The same numbers, the last axis the slowest."""
        return grad if grad.ndim < 2 else grad.transpose(0, -1).contiguous().transpose(0, -1)

    expect_close(
        case.steps(case.drawn(), grads=crossed),
        case.steps(case.drawn()),
        what="it is another one when gradients have other strides",
        advice="Go by shapes and torch's operators, not by where numbers lie.",
        tolerance=1e-5,
    )


@check
def rule_dtypes(case: RuleCase) -> None:
    """float32 steps are those in float64, but for rounding; a rule takes bfloat16 parameters as well."""
    if case.kernel is not None:
        raise NotApplicable("kernel_equals_rule tries the dtypes that a kernel takes")
    expect_close(
        case.steps(case.drawn()),
        case.steps(case.drawn(dtype=torch.float64)),
        what="in float32 it is not what it is in float64",
        advice="Look for a difference of large numbers, or a constant that float32 cannot hold.",
        tolerance=1e-4,
    )
    given = case.drawn(dtype=torch.bfloat16)
    case.steps(given)
    for name, tensor in given.leaves().items():
        if not bool(tensor.isfinite().all()):
            raise CheckFailure(f"{name!r} is not finite after {len(_RATES)} steps in bfloat16")


@check
def rule_compiles(case: RuleCase) -> None:
    """torch.compile(fullgraph=True, backend="eager") traces a step whole."""
    torch._dynamo.reset()
    compiled = torch.compile(case.step, fullgraph=True, backend="eager", dynamic=False)
    given, other = (replace(d, own=d.own[-2:]) for d in (case.drawn(), case.drawn()))
    try:
        compiled(given)
    except Exception as error:
        cause = str(error).strip().split("\n", 1)[0]
        raise CheckFailure(
            f"expected a step to be traced whole by torch.compile(fullgraph=True), found "
            f"{type(error).__name__}: {cause}. Use tensor operations only."
        ) from error
    case.step(other)
    expect_close(
        given.leaves(),
        other.leaves(),
        what="a step does something else when it is compiled",
        advice="Look for a branch on something that is not an argument.",
        tolerance=1e-5,
    )


@check
def rule_cuda(case: RuleCase) -> None:
    """On CUDA steps are those of the CPU, and nothing waits for the device."""
    if not torch.cuda.is_available():
        raise NotApplicable("there is no CUDA device")
    device = torch.device("cuda")
    case.step(case.drawn(device=device))  # the first call of a library may wait while it is set up
    given = case.drawn(device=device)
    with unsynchronized():
        case.step(given)
    expect_close(
        case.steps(case.drawn(device=device)),
        replace(case, kernel=None).steps(case.drawn(device=CPU)),
        what="on CUDA it is not what the rule makes of it on the CPU",
        advice="Look for operators that differ, or for memory that is not set.",
        tolerance=1e-4,
    )


@check
def kernel_equals_rule(case: RuleCase) -> None:
    """A kernel's steps are those of the rule on each tensor in float64: many tensors, narrow gradients."""
    if case.kernel is None:
        raise NotApplicable("the rule is no kernel")
    alone = replace(case, kernel=None)
    for dtype, tolerance in _TOLERANCES.items():
        kernel = _kernel(type(case.kernel), case.rule, dtype, case.device)
        if kernel is None:
            continue
        mine = replace(case, kernel=kernel)
        for many, narrow in ((1, False), (9, False), *(((1, True),) if kernel.casts else ())):
            given = mine.drawn(dtype=dtype, many=many)
            exactly = given.double()
            rounded = partial(_rounded, dtype=dtype, narrow=narrow)
            found = mine.steps(given, grads=rounded)
            expected = alone.steps(exactly, grads=lambda *g, r=rounded: r(*g).double())
            expect_close(
                found,
                {name: tensor.to(found[name].dtype) for name, tensor in expected.items()},
                what=f"of {len(given.own)} tensors in {dtype} it is not what the rule makes of each",
                advice="Compute the same, or let match return None where it cannot.",
                tolerance=1e-2 if isinstance(case.rule, Cast) else tolerance,
                usual=dict.fromkeys(expected, torch.ones(())),  # a sum may cancel to nothing
            )


def _rounded(grad: Tensor, number: int, *, dtype: torch.dtype, narrow: bool) -> Tensor:
    """A gradient as a kernel is given it: every other one in bfloat16 if `narrow`."""
    return grad.to(torch.bfloat16 if narrow and number % 2 else dtype)


@check
def rule_meta(case: RuleCase) -> None:
    """A step runs on tensors without data: so plans are checked, and their memory counted."""
    given = case.drawn(device=META)
    try:
        case.step(given)
    except Exception as error:
        raise CheckFailure(
            f"expected a step on tensors of the device meta to run, found {type(error).__name__}: {error}. "
            f"Read no numbers from Python, and register what launches by itself as an operator of torch "
            f"with a twin for shapes."
        ) from error


@check
def rule_rate(case: RuleCase) -> None:
    """A step goes by the tensor `lr`, not by the rule's field: where it is 0, the parameter stays."""
    if "lr" not in case.arguments:
        raise NotApplicable("the rule asks for no lr")
    first = case.arguments[0]
    given, before = case.drawn(), case.drawn().leaves()
    given.common["lr"].zero_()
    case.step(given)
    expect_same_bits(
        given.leaves(),
        {name: tensor for name, tensor in before.items() if name.startswith(f"{first}[")},
        what="it has changed in a step whose lr is 0",
        advice="Take the argument lr, which schedules change, in place of self.lr.",
    )


RULE_CHECKS: tuple[Check, ...] = (
    rule_runs,
    rule_writes,
    rule_repeats,
    rule_rate,
    rule_host_reads,
    rule_meta,
    rule_random,
    rule_strides,
    rule_dtypes,
    rule_compiles,
    rule_cuda,
    kernel_equals_rule,
)

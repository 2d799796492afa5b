"""Checks of optimizers, and of kernels that take many tensors at once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from graphnet.graph import META, operations_of
from graphnet.sdk import Cast, Optimizer, Spec
from graphnet.testing.author import raised
from graphnet.testing.check import Check, check
from graphnet.testing.checks.compiled import compiled_anew
from graphnet.testing.checks.precision import unsynchronized
from graphnet.testing.checks.purity import undrawn
from graphnet.testing.compare import expect_close, expect_same_bits, same_bits
from graphnet.testing.outcome import CheckFailure, NotApplicable
from graphnet.testing.rule_case import CPU, RATES, Own, RuleCase, Tensors, kernel_for

_TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}  # of kernels; bfloat16 is too coarse


@check
def rule_runs(case: RuleCase) -> None:
    """An update has known arguments, writes in place and returns nothing; a cast returns each tensor."""
    rule = case.rule
    if not case.shapes():
        raise CheckFailure(
            f"expected rule_for to leave some parameters to {rule}, found that it leaves none"
        )
    if isinstance(rule, Optimizer):
        known = {"parameter", "grad", "lr", "step", *rule.states(Spec(case.shapes()[0]))}
        if unknown := [name for name in case.arguments if name not in known]:
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
    """A step writes only to the parameter and its states, not to a gradient or a common argument."""
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
    """The same steps on the same tensors give the same bits."""
    expect_same_bits(
        case.steps(case.drawn()),
        case.steps(case.drawn()),
        what="the same steps gave another result the second time",
        advice="Keep nothing outside of the states, and add up in one order.",
    )


@check
def rule_elementwise(case: RuleCase) -> None:
    """If the rule says that it is elementwise, parts of a parameter are updated as the whole one is."""
    rule = case.rule
    if case.kernel is not None or not isinstance(rule, Optimizer) or not rule.elementwise:
        raise NotApplicable("the rule does not say that it is elementwise")
    for shape in case.shapes():
        for name, spec in rule.states(Spec(shape)).items():
            if spec is not None and spec.shape != shape:
                raise CheckFailure(
                    f"expected the state {name!r} to have the parameter's shape {shape}, found {spec.shape}. "
                    f"Leave elementwise out."
                )
    parts: list[Own] = [
        {n: None if t is None else t.reshape(-1)[first::2].clone() for n, t in own.items()}
        for own in case.drawn().own
        for first in (0, 1)
    ]
    whole, cut = case.drawn(), replace(case.drawn(), own=parts)
    case.step(whole)
    case.step(cut)
    for number, own in enumerate(whole.own):
        even, odd = cut.own[2 * number : 2 * number + 2]
        expect_close(
            {name: torch.cat((_there(even[name]), _there(odd[name]))) for name in _given(own)},
            {
                name: torch.cat((t.reshape(-1)[::2], t.reshape(-1)[1::2]))
                for name, t in _given(own).items()
            },
            what="a part of the parameter is updated in another way than the whole",
            advice="Leave elementwise out if an element depends on others.",
            tolerance=1e-6,
        )


def _given(own: Own) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in own.items() if tensor is not None}


@check
def rule_host_reads(case: RuleCase) -> None:
    """No number is read back to the host, since steps are captured and replayed with other numbers."""
    given = case.drawn()
    for operation in operations_of(lambda: case.step(given)):
        if "data_dependent_output" in operation.tags:
            raise CheckFailure(
                f"expected no number to be read back to the host, found {operation}. Compute with `lr` and "
                f"`step` as the 0-dim tensors that they are."
            )


@check
def rule_random(case: RuleCase) -> None:
    """A step does not use the global random generators."""
    given = case.drawn()
    with undrawn("a step"):
        case.step(given)


@check
def rule_strides(case: RuleCase) -> None:
    """Gradients of any strides give the same results."""

    def crossed(grad: Tensor, number: int) -> Tensor:
        """Return the same numbers with the last axis as the slowest in memory."""
        return grad if grad.ndim < 2 else grad.transpose(0, -1).contiguous().transpose(0, -1)

    expect_close(
        case.steps(case.drawn(), grads=crossed),
        case.steps(case.drawn()),
        what="the result changes when gradients have other strides",
        advice="Use shapes and torch's operators, not the order of numbers in memory.",
        tolerance=1e-5,
    )


@check
def rule_dtypes(case: RuleCase) -> None:
    """float32 gives the results of float64 up to rounding, and bfloat16 parameters are accepted."""
    if case.kernel is not None:
        raise NotApplicable("kernel_equals_rule tries the dtypes that a kernel takes")
    expect_close(
        case.steps(case.drawn()),
        case.steps(case.drawn(dtype=torch.float64)),
        what="the float32 result differs from the float64 result",
        advice="Look for a difference of large numbers, or a constant that float32 cannot hold.",
        tolerance=1e-4,
    )
    given = case.drawn(dtype=torch.bfloat16)
    case.steps(given)
    for name, tensor in given.leaves().items():
        if not bool(tensor.isfinite().all()):
            raise CheckFailure(f"{name!r} is not finite after {len(RATES)} steps in bfloat16")


@check
def rule_compiles(case: RuleCase) -> None:
    """torch.compile(fullgraph=True, backend="eager") can trace a step."""
    compiled = compiled_anew(case.step, "eager")
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
        what="a compiled step gives another result",
        advice="Look for a branch on something that is not an argument.",
        tolerance=1e-5,
    )


@check
def rule_cuda(case: RuleCase) -> None:
    """Steps on CUDA give the results of the CPU, and nothing waits for the device."""
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
        what="the result on CUDA differs from that of the rule on the CPU",
        advice="Look for operators that differ, or for memory that is not set.",
        tolerance=1e-4,
    )


@check
def kernel_equals_rule(case: RuleCase) -> None:
    """A kernel gives the results of the rule in float64, for many tensors and for bfloat16 gradients."""
    if case.kernel is None:
        raise NotApplicable("the rule is no kernel")
    alone = replace(case, kernel=None)
    for dtype, tolerance in _TOLERANCES.items():
        kernel = kernel_for(type(case.kernel), case.rule, dtype, case.device)
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
                what=f"the result for {len(given.own)} tensors in {dtype} differs from that of the rule",
                advice="Compute the same, or let match return None where it cannot.",
                tolerance=1e-2 if isinstance(case.rule, Cast) else tolerance,
                usual=dict.fromkeys(expected, torch.ones(())),  # a sum may cancel to nothing
            )


@check
def kernel_skips(case: RuleCase) -> None:
    """A kernel that takes `finite` writes nothing if it is False, and else the same as without it."""
    if case.kernel is None or not case.kernel.skips:
        raise NotApplicable("the rule is no kernel that takes `finite`")
    before, given = case.drawn(), case.drawn()
    for tensors in (before, given):
        for own in tensors.own[::2]:
            own["grad"] = torch.full_like(_there(own["grad"]), torch.nan)
    case.step(given, torch.tensor(False, device=case.device))
    expect_same_bits(
        {n: t.nan_to_num(7.0) for n, t in given.leaves().items()},
        {n: t.nan_to_num(7.0) for n, t in before.leaves().items()},
        what="it has changed in a step whose gradients are not finite",
        advice="Write nothing where the argument finite is False.",
    )
    plain, told = case.drawn(), case.drawn()
    case.step(plain)
    case.step(told, torch.tensor(True, device=case.device))
    expect_same_bits(
        told.leaves(),
        plain.leaves(),
        what="the result where finite is True differs from the result without it",
        advice="Where the argument finite is True, do the same as without it.",
    )


@check
def kernel_copies(case: RuleCase) -> None:
    """A kernel that takes `copies` writes the new parameters into them, and else does the same."""
    if case.kernel is None or not case.kernel.copies:
        raise NotApplicable("the rule is no kernel that takes `copies`")
    first = case.arguments[0]
    plain, given = case.drawn(), case.drawn()
    copies = _narrow(given, first)
    case.step(plain)
    case.step(given, copies=copies)
    expect_same_bits(
        given.leaves(),
        plain.leaves(),
        what="the result with copies differs from the result without them",
        advice="With the argument copies, do the same as without it.",
    )
    expect_close(
        {f"copy[{i}]": copy.float() for i, copy in enumerate(copies)},
        {f"copy[{i}]": _there(own[first]).float() for i, own in enumerate(given.own)},
        what="a copy is not the new parameter",
        advice="Write each new parameter into the tensor of `copies` at the same position.",
        tolerance=1e-2,
    )
    if case.kernel.skips:
        before = [copy.clone() for copy in copies]
        case.step(case.drawn(), torch.tensor(False, device=case.device), copies)
        expect_same_bits(
            {f"copy[{i}]": copy for i, copy in enumerate(copies)},
            {f"copy[{i}]": copy for i, copy in enumerate(before)},
            what="it has changed in a step whose gradients are not finite",
            advice="Write nothing where the argument finite is False.",
        )


def _narrow(given: Tensors, name: str) -> tuple[Tensor, ...]:
    """Tensors in bfloat16 like the parameters, with other numbers."""
    parameters = (_there(own[name]) for own in given.own)
    return tuple(torch.full_like(one, 7.0, dtype=torch.bfloat16) for one in parameters)


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _rounded(grad: Tensor, number: int, *, dtype: torch.dtype, narrow: bool) -> Tensor:
    """Convert a gradient to the kernel's dtype; if `narrow`, every second one to bfloat16."""
    return grad.to(torch.bfloat16 if narrow and number % 2 else dtype)


@check
def rule_meta(case: RuleCase) -> None:
    """A step runs on meta tensors, by which plans are checked and their memory is counted."""
    given = case.drawn(device=META)
    try:
        case.step(given)
    except Exception as error:
        raise CheckFailure(
            f"expected a step on tensors of the device meta to run, found {raised(error)}. "
            f"Read no numbers into Python, and make code that launches GPU kernels itself an operator of "
            f"torch with a fake implementation."
        ) from error


@check
def rule_rate(case: RuleCase) -> None:
    """A step uses the argument `lr`, not the rule's field: if it is 0, the parameter does not change."""
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


RULE_CHECKS: tuple[Check[RuleCase], ...] = (
    rule_runs,
    rule_writes,
    rule_repeats,
    rule_elementwise,
    rule_rate,
    rule_host_reads,
    rule_meta,
    rule_random,
    rule_strides,
    rule_dtypes,
    rule_compiles,
    rule_cuda,
    kernel_equals_rule,
    kernel_skips,
    kernel_copies,
)

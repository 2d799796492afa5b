"""Checks of sizes for which layers often fail: a batch of one, odd sizes, an empty batch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphnet.errors import GraphError
from graphnet.testing.author import raised
from graphnet.testing.case import Case
from graphnet.testing.check import check
from graphnet.testing.checks.gradients import gradient_autograd, gradient_numerical
from graphnet.testing.checks.observed import forward_observed, gradient_shapes
from graphnet.testing.leaves import leaves
from graphnet.testing.outcome import CheckFailure, NotApplicable
from graphnet.testing.sample import Input


@check
def batch_of_one(case: Case) -> None:
    """A batch of one keeps its batch axis, and its gradients are right."""
    one, two, three = (_batch(case, size) for size in (1, 2, 3))
    shapes = [
        {name: tuple(y.shape) for name, y in leaves(_forward(c), c.layer.outputs).items()}
        for c in (one, two, three)
    ]
    for output, shape in shapes[0].items():
        second, third = shapes[1][output], shapes[2][output]
        expected = tuple(2 * b - c for b, c in zip(second, third, strict=True))
        if shape != expected:
            raise CheckFailure(
                f"expected the output {output!r} as {expected} for a batch of 1 (it is {second} for "
                f"2), found {shape}. Name the axes of squeeze and reshape."
            )
    _right(one)


@check
def odd_sizes(case: Case) -> None:
    """Odd and different heights and widths work, unless the layer refuses them with a GraphError."""
    _right(_changed(case, _odd, "there is no height or width"))


def _odd(given: Input) -> Input:
    """Make height and width odd, and the width smaller by 2 if it is large enough."""
    shape = given.shape if isinstance(given, Tensor) else given
    if len(shape) < 3:
        return given
    sizes = [n - 1 if n % 2 == 0 else n for n in shape[2:]]
    if len(sizes) > 1 and sizes[-1] > 4:
        sizes[-1] -= 2
    if not isinstance(given, Tensor):
        return (*shape[:2], *sizes)
    for axis, size in enumerate(sizes, start=2):
        given = given.narrow(axis, 0, size)
    return given.contiguous()


@check
def axes_of_one(case: Case) -> None:
    """Where forward takes an axis of size 1, backward takes it too."""
    case.require_backward()
    if case.varied:
        raise NotApplicable("it is tried on the samples as they are given")
    tried = False
    most = max((len(shape) for shape in _shapes(case.inputs)), default=0)
    for axis in range(1, most):
        try:
            one = _changed(case, functools.partial(_one, axis=axis), "it has size 1 already")
            one.forward(one.arguments())
        except Exception:  # sizes that do not fit may be refused, which other checks look at
            continue
        tried = True
        try:
            gradient_shapes.function(one)
        except Exception as error:
            told = str(error) if isinstance(error, CheckFailure) else raised(error)
            raise CheckFailure(
                f"with size 1 on axis {axis}, which forward takes, expected backward to take it too, "
                f"found: {told}"
            ) from error
    if not tried:
        raise NotApplicable("forward takes no axis of size 1")


def _one(given: Input, *, axis: int) -> Input:
    """Keep only the first element along an axis."""
    if isinstance(given, Tensor):
        return given.narrow(axis, 0, 1).contiguous() if axis < given.ndim and len(given) else given
    return (*given[:axis], 1, *given[axis + 1 :]) if axis < len(given) else given


@check
def ranks(case: Case) -> None:
    """A pointwise layer takes tensors of any number of axes, unless it refuses them with a GraphError."""
    if not case.layer.pointwise:
        raise NotApplicable("the layer is not declared pointwise")
    if case.parameters or case.ports.states:
        raise NotApplicable("parameters and states may need certain axes")
    if any(isinstance(given, Tensor) for given in case.inputs):
        raise NotApplicable("the sample states the numbers of its inputs")
    reasons = []
    for shape in ((), (5,), (3, 4), (2, 4, 3), (2, 4, 3, 1, 2)):
        try:
            _right(case.with_inputs([shape] * len(case.inputs)))
        except (GraphError, NotApplicable) as reason:
            reasons.append(str(reason))
        except Exception as error:
            told = str(error) if isinstance(error, CheckFailure) else raised(error)
            raise CheckFailure(
                f"on an input of {len(shape)} axes, {shape}: {told}. Take any number of axes, or refuse "
                f"with GraphError."
            ) from error
    if len(reasons) == 5:
        raise NotApplicable(reasons[0])


@check
def empty_batch(case: Case) -> None:
    """An empty batch gives empty outputs, and gradients of zeros."""
    empty = _batch(case, 0)
    _accepted(empty)
    forward_observed.function(empty)
    if not case.trainable:
        return
    gradient_shapes.function(empty)
    one = empty.run()
    if any(y.numel() for y in leaves(one.results, empty.layer.outputs).values()):
        return  # such as the mean of an empty batch: its value is the author's choice
    for leaf, gradient in leaves(one.gradients, sorted(empty.differentiable)).items():
        wrong = gradient[gradient != 0]
        if wrong.numel():
            advice = (
                "Look for a mean over the batch, which divides by 0."
                if bool(wrong.isnan().any())
                else "Every gradient is a sum over the batch: look for what is added beside it."
            )
            raise CheckFailure(
                f"expected a gradient of zeros for {leaf!r} from an empty batch, found "
                f"{float(wrong[0])}. {advice}"
            )


def _batch(case: Case, size: int) -> Case:
    """Change the batch size: the first axis of the inputs for which it is that of the first input."""
    sizes = [
        i.shape[0] if isinstance(i, Tensor) and i.ndim else i[0] if len(i) else None
        for i in case.inputs
    ]
    batch = next((n for n in sizes if n is not None), None)

    def resize(given: Input) -> Input:
        if isinstance(given, Tensor):
            if not given.ndim or given.shape[0] != batch:
                return given
            return torch.cat([given] * (1 + size // given.shape[0]))[:size]
        return (size, *given[1:]) if given and given[0] == batch else given

    return _changed(case, resize, "no input has a batch axis", always=True)


def _changed(
    case: Case, change: Callable[[Input], Input], reason: str, *, always: bool = False
) -> Case:
    inputs = [change(given) for given in case.inputs]
    if not inputs or (not always and _shapes(inputs) == _shapes(case.inputs)):
        raise NotApplicable(reason)
    try:
        return case.with_inputs(inputs)
    except GraphError as error:
        raise NotApplicable(f"refused: {error}") from error


def _shapes(inputs: Sequence[Input]) -> list[tuple[int, ...]]:
    return [tuple(i.shape) if isinstance(i, Tensor) else i for i in inputs]


def _accepted(case: Case) -> None:
    """Raise NotApplicable if the layer refuses these inputs with a GraphError."""
    try:
        _ = case.ports
        case.forward(case.arguments())
    except GraphError as error:
        raise NotApplicable(f"refused: {error}") from error


def _forward(case: Case) -> dict[str, Tensor]:
    _accepted(case)
    return case.forward(case.arguments())


def _right(case: Case) -> None:
    """Compare shapes with those on meta tensors, and gradients with differences and autograd."""
    _accepted(case)
    forward_observed.function(case)
    if not case.trainable:
        return
    gradient_shapes.function(case)
    for numbers in (gradient_numerical, gradient_autograd):
        if not case.excuse(numbers):
            with contextlib.suppress(NotApplicable):  # autograd cannot see through every forward
                numbers.function(case)

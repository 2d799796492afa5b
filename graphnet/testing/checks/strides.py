"""Checks of strides (transposed, sliced, channels_last, expanded), pointwise layers and `overwrites`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from graphnet.sdk import channels_last as last_in_memory
from graphnet.testing.author import raised
from graphnet.testing.case import Case, Pass
from graphnet.testing.check import check
from graphnet.testing.checks.large import enlarged
from graphnet.testing.compare import expect_close, expect_same_bits, same_bits
from graphnet.testing.leaves import Named, cloned, floating, leaves, replaced, source_of
from graphnet.testing.outcome import CheckFailure, NotApplicable

Change = Callable[[Tensor], Tensor | None]
"""Copies a tensor to other strides; returns None if the tensor cannot have them."""
_TOLERANCE = 1e-10  # other strides may take another kernel, which sums in another order


@check
def noncontiguous(case: Case) -> None:
    """Transposed and sliced inputs, parameters and gradients give the same results."""
    _restrided(case, "transposed", transposed)
    _restrided(case, "sliced", sliced)


@check
def channels_last(case: Case) -> None:
    """Inputs, weights and gradients in channels_last give the same results."""
    _restrided(case, "channels_last", in_channels_last)


def _restrided(case: Case, words: str, change: Change) -> None:
    """Compare the results after changing the strides of each argument alone, and of all together."""
    arguments = case.arguments()
    fitting = {leaf: t for leaf, raw in leaves(arguments).items() if (t := change(raw)) is not None}
    fitting.pop("key", None)
    alone = [{leaf: tensor} for leaf, tensor in fitting.items()]
    if not alone:
        raise NotApplicable(f"no argument can be {words}")
    expected = everything(case, arguments, None)
    for changes in [*alone, fitting]:
        what = f"with {' and '.join(changes)} {words}"
        _same(_tried(case, replaced(arguments, changes), None, what), expected, what)
    if case.trainable:
        what = f"with gradients {words}"
        _same(_tried(case, arguments, change, what), expected, what)


def everything(case: Case, arguments: Named, change: Change | None) -> dict[str, Tensor]:
    """Return outputs and gradients; `change` changes the strides of the outputs' gradients."""
    results = case.forward(arguments)
    found = leaves(results, case.layer.outputs)
    if not case.trainable:
        return found
    grads = case.grads(results)
    if change is not None:
        changed = {leaf: change(tensor) for leaf, tensor in leaves(grads).items()}
        grads = replaced(grads, {leaf: t for leaf, t in changed.items() if t is not None})
    gradients = leaves(case.backward(arguments, results, grads), sorted(case.differentiable))
    return found | {f"gradient of {leaf}": tensor for leaf, tensor in gradients.items()}


def _tried(case: Case, arguments: Named, change: Change | None, what: str) -> dict[str, Tensor]:
    try:
        return everything(case, arguments, change)
    except Exception as error:  # the layer's own code
        advice = " Use reshape, not view." if "view" in str(error) else ""
        raise CheckFailure(
            f"{what}: expected the same results, found {raised(error)}.{advice}"
        ) from error


def _same(found: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    expect_close(
        found,
        expected,
        what=f"the result changes {what}",
        advice="Use reshape, not view, and axes, not storage order; strides carry no meaning.",
        tolerance=_TOLERANCE,
    )


def transposed(tensor: Tensor) -> Tensor | None:
    """Copy a tensor with its last two axes swapped in memory."""
    if tensor.ndim < 2:
        return None
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def sliced(tensor: Tensor) -> Tensor | None:
    """Copy a tensor to every second element of a larger storage, from the element 1."""
    if not tensor.ndim:
        return None
    room = tensor.new_zeros((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1))
    view = room[..., 1::2]
    view.copy_(tensor)
    return view


def in_channels_last(tensor: Tensor) -> Tensor | None:
    """Copy a tensor to channels_last: the channels are next to each other in memory."""
    return last_in_memory(tensor) if 3 <= tensor.ndim <= 5 else None


@check
def expanded(case: Case) -> None:
    """Inputs and gradients of stride 0, as expand makes them, give the same as contiguous copies."""
    arguments = case.arguments()
    inputs = leaves(arguments, case.ports.inputs)
    found_any = False
    for leaf, tensor in inputs.items():
        for axis in range(tensor.ndim):
            if tensor.shape[axis] < 2:
                continue
            found_any = True
            wide = tensor.narrow(axis, 0, 1).expand_as(tensor)
            changed = replaced(arguments, {leaf: wide})
            copied = cloned(replaced(arguments, {leaf: wide.contiguous()}))
            what = f"with {leaf} expanded along axis {axis}"
            _same(_tried(case, changed, None, what), everything(case, copied, None), what)
    if case.trainable:
        found_any |= _expanded_gradients(case, case.run())
    if not found_any:
        raise NotApplicable("no argument can be expanded")


def _expanded_gradients(case: Case, one: Pass) -> bool:
    """Test gradients as those of a sum: one number that is expanded to the output's shape."""
    wide = {
        name: g.flatten()[:1].expand(g.numel()).view(g.shape) if g.numel() else g
        for name, g in one.grads.items()
    }
    copied = {name: g.contiguous() for name, g in wide.items()}
    expect_close(
        leaves(case.backward(one.arguments, one.results, wide)),
        leaves(case.backward(one.arguments, one.results, copied)),
        what="the result changes with gradients that are expanded from one number",
        advice="Use reshape, not view, and never write to a gradient.",
        tolerance=_TOLERANCE,
        usual=leaves(one.gradients),
    )
    return any(g.numel() > 1 for g in wide.values())


@check
def pointwise(case: Case) -> None:
    """In a pointwise layer, an element depends only on the same element of the inputs, not on its place."""
    if not case.layer.pointwise:
        raise NotApplicable("the layer is not declared pointwise")
    arguments = case.arguments()
    inputs = leaves(arguments, case.ports.inputs)
    shape = next(iter(inputs.values())).shape
    expected = everything(case, arguments, None)
    for name, tensor in {**inputs, **expected}.items():
        if tensor.shape != shape and name.removeprefix("gradient of ") not in case.parameters:
            raise CheckFailure(
                f"expected {name!r} of a pointwise layer in the shape {tuple(shape)}, found "
                f"{tuple(tensor.shape)}. Do not declare it pointwise."
            )
    _only_its_own_place(case, arguments, inputs)
    if not case.parameters and not case.ports.states and "key" not in case.layer.signature.forward:
        _anywhere(case, arguments, inputs)


def _only_its_own_place(case: Case, arguments: Named, inputs: dict[str, Tensor]) -> None:
    before = case.outputs(case.forward(arguments))
    for leaf, tensor in floating(inputs).items():
        moved = tensor.clone()
        mask = torch.zeros(tensor.numel(), dtype=torch.bool)
        mask[:: max(2, tensor.numel() // 5)] = True
        moved.view(-1)[mask] += 0.25
        after = case.outputs(case.forward(replaced(arguments, {leaf: moved})))
        for output, y in after.items():
            if not torch.equal(y.flatten()[~mask], before[output].flatten()[~mask]):
                raise CheckFailure(
                    f"expected each element of {output!r} to depend on its own place in {leaf!r} "
                    f"alone, found that others matter. Do not declare the layer pointwise."
                )


def _anywhere(case: Case, arguments: Named, inputs: dict[str, Tensor]) -> None:
    shape = next(iter(inputs.values())).shape
    order = torch.randperm(shape.numel(), generator=torch.Generator().manual_seed(4))
    back = order.argsort()
    results = case.forward(arguments)
    shuffled = {leaf: tensor.flatten()[order] for leaf, tensor in inputs.items()}
    elsewhere = replaced(arguments, shuffled)
    for name, y in leaves(case.forward(elsewhere), case.layer.outputs).items():
        expected = leaves(results, case.layer.outputs)
        expect_close(
            {name: y[back].view(shape)},
            {name: expected[name]},
            what="an element changes with its place",
            advice="Do not declare the layer pointwise.",
            tolerance=1e-12,
        )


@check
def overwrites(case: Case) -> None:
    """`forward_` and `backward_` give the same bits, and write only to what `overwrites` names."""
    declared = case.layer.overwrites
    if not declared:
        raise NotApplicable("the layer declares no overwriting")
    made = case.layer.outputs + case.layer.saves
    forward = {result: name for result, name in declared.items() if result in made}
    backward = {result: name for result, name in declared.items() if result not in made}
    sizes = [case.arguments()]
    with contextlib.suppress(NotApplicable):  # the sample states the numbers of its inputs
        sizes.append(enlarged(case, sizes[0]))
    for arguments in sizes:
        if forward:
            _forward_overwrites(case, arguments, forward)
        if backward and case.trainable:
            _backward_overwrites(case, arguments, backward)


def _forward_overwrites(case: Case, arguments: Named, declared: Mapping[str, str]) -> None:
    given = cloned(arguments)
    expected = case.forward(cloned(arguments))
    _overwritten("forward", declared, given, expected, lambda: case.forward_in_place(given))


def _backward_overwrites(case: Case, arguments: Named, declared: Mapping[str, str]) -> None:
    one = case.run(arguments=cloned(arguments))
    given = cloned({**one.arguments, **one.results, **one.grads})
    expected = {f"grad_{name}": gradient for name, gradient in one.gradients.items()}
    _overwritten("backward", declared, given, expected, lambda: case.backward_in_place(given))


def _overwritten(
    method: str,
    declared: Mapping[str, str],
    given: Named,
    expected: Named,
    call: Callable[[], Named],
) -> None:
    before = {leaf: tensor.clone() for leaf, tensor in leaves(given).items()}
    versions = {leaf: tensor._version for leaf, tensor in leaves(given).items()}
    try:
        found = call()
    except Exception as error:  # the layer's own code
        raise CheckFailure(f"{method}_ fails: {raised(error)}") from error
    expect_same_bits(
        leaves(found),
        leaves(expected),
        what=f"{method}_ does not give the bits of {method}",
        advice="Make the same operations, the last one in place.",
    )
    targets = {
        result: argument if argument in before else f"{argument}[0]"
        for result, argument in declared.items()
    }
    for result, argument in targets.items():
        if source_of(leaves(found)[result], given) != argument:
            raise CheckFailure(
                f"expected {method}_ to return {result!r} in the storage of {argument!r}, found another "
                f"tensor. Write it in place, as {argument}.mul_(2), and return that."
            )
    for leaf, tensor in leaves(given).items():
        if leaf in targets.values():
            continue
        if tensor._version != versions[leaf] or not same_bits(tensor, before[leaf]):
            raise CheckFailure(
                f"expected {method}_ to write to {' and '.join(targets.values())} only, found that it "
                f"wrote to {leaf!r}"
            )

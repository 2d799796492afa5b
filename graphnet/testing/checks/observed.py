"""Checks that results have the shapes, dtypes, devices and views that meta tensors predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from graphnet.graph import META, Result, observe, observe_backward, operations_until_failure
from graphnet.sdk import Spec, channels_last
from graphnet.testing.author import raised
from graphnet.testing.case import Case, Pass
from graphnet.testing.check import check
from graphnet.testing.leaves import Named, cloned, leaves, replaced, source_of, specs_of
from graphnet.testing.outcome import CheckFailure, NotApplicable

_IMAGES = (4, 5)  # how many axes a tensor may have to be in channels_last


@check
def devices(case: Case) -> None:
    """Every tensor is made on the device of the inputs."""

    arguments = case.arguments()
    _made_beside(case, arguments, case.grads(case.forward(arguments)))
    if any(tensor.ndim in _IMAGES for tensor in leaves(arguments).values()):
        last = _last_in_memory(arguments)  # code may depend on the strides
        _made_beside(case, last, _last_in_memory(case.grads(case.forward(last))))


def _made_beside(case: Case, arguments: Named, grads: Named) -> None:
    """Raise CheckFailure if a tensor is made on another device than that of the arguments."""

    def on_meta(call: Callable[[], object]) -> None:
        for operation in operations_until_failure(call):
            for tensor in operation.tensors():
                if tensor.device != META and tensor.ndim:
                    raise CheckFailure(
                        f"expected every tensor on the device of the inputs, found that {operation} "
                        f"made one on {tensor.device}. Pass device=x.device, or use x.new_zeros(...)."
                    )

    on_meta(lambda: case.forward(_on_meta(arguments)))
    if case.trainable:
        results = case.forward(arguments)
        on_meta(lambda: case.backward(_on_meta(arguments), _on_meta(results), _on_meta(grads)))


def _last_in_memory(named: Named) -> Named:
    images = {leaf: t for leaf, t in leaves(named).items() if t.ndim in _IMAGES}
    return replaced(named, {leaf: channels_last(tensor) for leaf, tensor in images.items()})


def _on_meta(named: Named) -> Named:
    return replaced(named, {leaf: tensor.to(META) for leaf, tensor in leaves(named).items()})


@check
def forward_observed(case: Case) -> None:
    """Forward and inference return the shapes, dtypes and views that meta tensors predict."""
    arguments = case.arguments()
    _compare("forward", case, arguments, case.forward(arguments))
    if case.layer.signature.inference:
        _compare("inference", case, arguments, case.inference(arguments))


def _compare(method: str, case: Case, arguments: Named, results: Named) -> None:
    for (name, tensor), seen in zip(results.items(), _observed(method, case), strict=True):
        _same(f"{method}'s {name!r}", tensor, seen, arguments)


def _observed(method: str, case: Case) -> tuple[Result, ...]:
    try:
        return observe(case.layer, method, case.ports.specs)
    except Exception as error:
        raise CheckFailure(
            f"expected {method} to run on meta tensors, found {raised(error)}. "
            f"Nothing may look at data, and every tensor must be on its arguments' device."
        ) from error


def _same(what: str, tensor: Tensor, seen: Result, arguments: Mapping[str, object]) -> None:
    found = Spec(tuple(tensor.shape), tensor.dtype)
    expected = Spec(seen.spec.shape, seen.spec.dtype)
    if found != expected:
        raise CheckFailure(
            f"{what}: expected {expected} as on meta tensors, found {found}. Shapes and dtypes must "
            f"follow from those of the arguments."
        )
    source = source_of(tensor, arguments)
    if tensor.numel() and (source is None) != (seen.view_of is None):
        raise CheckFailure(
            f"{what}: expected {_sharing(seen.view_of and seen.view_of[0])} as on meta tensors, found "
            f"{_sharing(source)}. Return a view always or never."
        )


def _sharing(source: str | None) -> str:
    return f"a view of {source!r}" if source else "a tensor of its own"


@check
def dtypes(case: Case) -> None:
    """Results of float64 arguments are float64: no constant or cast changes the dtype."""
    arguments = case.arguments()
    if not any(t.is_floating_point() for t in leaves(arguments).values()):
        raise NotApplicable("the layer takes no floating tensor")
    results = case.forward(arguments)
    for name in case.layer.outputs:
        expect_dtype(f"the output {name!r}", results[name], arguments)
    if case.trainable:
        gradients = case.backward(arguments, results, case.grads(results))
        for leaf, gradient in leaves(gradients, sorted(case.differentiable)).items():
            if leaf not in case.ports.parameters:  # the gradient of a parameter may be wider
                expect_dtype(f"the gradient of {leaf!r}", gradient, arguments)


def expect_dtype(what: str, tensor: Tensor, arguments: Named) -> None:
    """Raise CheckFailure if the dtype of a floating result is not that of an argument."""
    given = {t.dtype for t in leaves(arguments).values() if t.is_floating_point()}
    if tensor.is_floating_point() and tensor.dtype not in given:
        expected = " or ".join(sorted(map(str, given)))
        raise CheckFailure(
            f"expected {what} in {expected} as the arguments, found {tensor.dtype}. Give constants "
            f"dtype=x.dtype, and cast back what was cast."
        )


@check
def parameter_gradients(case: Case) -> None:
    """Every parameter receives a gradient that is not zero everywhere, in some sample that has it."""
    case.require_backward()
    if not case.parameters:
        raise NotApplicable("the layer has no parameter")
    for name in case.parameters:
        if any(one.gradients[name] is None for one in _three(case)):
            raise CheckFailure(
                f"expected a gradient of the parameter {name!r}, found None. Backward returns one for "
                f"each input and parameter, in forward's order."
            )
        others = (one for one in case.siblings if one.usable and name in one.parameters)
        if not any(_nonzero(one, name) for one in (case, *others)):
            raise CheckFailure(
                f"expected a gradient of the parameter {name!r}, found zeros for three draws: it "
                f"would never be trained. Return its gradient, or make it a state."
            )


def _three(case: Case) -> list[Pass]:
    return [case.run(seed=seed) for seed in range(3)]


def _nonzero(case: Case, name: str) -> bool:
    """Whether the gradient of a parameter is not zero everywhere, for one of three draws."""
    if not case.trainable:
        return False
    gradients = [one.gradients[name] for one in _three(case)]
    return any(given is not None and bool((given != 0).any()) for given in gradients)


@check
def gradient_shapes(case: Case) -> None:
    """Each gradient has the shape of its value, and the spec that meta tensors predict."""
    case.require_backward()
    one = case.run()
    wanted = case.differentiable
    for name in sorted(wanted):
        value, gradient = leaves(one.arguments, [name]), leaves(one.gradients, [name])
        for leaf, tensor in value.items():
            if leaf not in gradient:
                raise CheckFailure(f"expected a gradient of {leaf!r}, found None")
            if gradient[leaf].shape != tensor.shape:
                raise CheckFailure(
                    f"expected the gradient of {leaf!r} in its shape {tuple(tensor.shape)}, found "
                    f"{tuple(gradient[leaf].shape)}. Where forward broadcasts, backward sums."
                )
    _as_observed(case, wanted)


def _as_observed(case: Case, wanted: frozenset[str]) -> None:
    arguments = case.arguments()
    results = cloned(case.forward(arguments))  # no views of arguments, as for meta tensors
    grads = case.grads(results)
    gradients = case.backward(arguments, results, grads)
    try:
        seen = observe_backward(
            case.layer,
            {**specs_of(arguments), **specs_of(results)},
            gradients=specs_of(grads),
            wanted=wanted,
        )
    except Exception as error:
        raise CheckFailure(
            f"expected backward to run on meta tensors, found {raised(error)}"
        ) from error
    foretold = {
        leaf: result
        for name, results_of in zip(gradients, seen, strict=True)
        for leaf, result in _by_leaf(name, results_of)
    }
    everything = {**arguments, **results, **grads}
    for leaf, gradient in leaves(gradients, sorted(wanted)).items():
        _same(f"the gradient of {leaf!r}", gradient, foretold[leaf], everything)


def _by_leaf(
    name: str, seen: Result | tuple[Result | None, ...] | None
) -> list[tuple[str, Result]]:
    if isinstance(seen, tuple):
        return [(f"{name}[{i}]", one) for i, one in enumerate(seen) if one is not None]
    return [] if seen is None else [(name, seen)]

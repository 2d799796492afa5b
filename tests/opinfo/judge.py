"""Judge: whether a layer computes what torch's operator computes on one of torch's own sample inputs.

A sample is equal (forward and every gradient to 1e-10 in float64, by the layer and by the kernel that a
plan would take), refused (graphnet says in words what it does not do), or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from graphnet.errors import GraphnetError
from graphnet.graph import as_tuple, bind_inputs, gradient_names, invoke
from graphnet.passes.select_kernels import kernel_for
from graphnet.sdk import Layer, Spec, default_registry
from tests.support.oracle import random_tensor

BOUND = 1e-10


class Refused(GraphnetError):
    """What a sample asks for can be said of no layer; the reason is the message."""


@dataclass(frozen=True)
class Use:
    """A layer with its inputs, and its parameters and states by name, None for an absent parameter.

    They are the sample's own tensors, so that each gradient finds its tensor. `inference` runs the layer
    outside training. `enter` brings an input into the axes that the layer takes, and `leave` an output back.
    """

    layer: Layer
    inputs: Sequence[Tensor]
    parameters: Mapping[str, Tensor | None] = field(default_factory=dict)
    states: Mapping[str, Tensor] = field(default_factory=dict)
    inference: bool = False
    enter: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    leave: Callable[[Tensor], Tensor] = field(default=lambda y: y)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of forward by name; a tuple for `*xs`."""
        signature = self.layer.signature
        if signature.variadic:
            inputs: dict[str, Any] = {signature.variadic: tuple(self.inputs)}
        else:
            inputs = dict(zip(signature.tensors, self.inputs, strict=False))
        return {**inputs, **self.parameters, **self.states}


Row = Callable[..., Use]
"""Takes what the operator takes, and returns the layer that computes it."""


class Status(Enum):
    EQUAL = "equal"
    REFUSED = "refused"
    WRONG = "wrong"


@dataclass(frozen=True)
class Verdict:
    """What became of one sample; `by_kernel` says whether a kernel was compared too."""

    status: Status
    reason: str = ""
    by_kernel: bool = False


@dataclass
class Tally:
    """The verdicts on all samples of an operator."""

    operator: str
    verdicts: list[Verdict] = field(default_factory=list)

    def count(self, status: Status) -> int:
        return sum(verdict.status is status for verdict in self.verdicts)

    def reasons(self, status: Status) -> dict[str, int]:
        """Reason -> how many samples have it."""
        found: dict[str, int] = {}
        for verdict in self.verdicts:
            if verdict.status is status:
                found[verdict.reason] = found.get(verdict.reason, 0) + 1
        return found


def operators() -> dict[str, Any]:
    """Name, with a dot and the variant's name if there is one -> torch's OpInfo."""
    # Imported here: it takes seconds, and collecting tests should not.
    from torch.testing._internal.common_methods_invocations import op_db

    return {".".join(filter(None, (op.name, op.variant_test_name))): op for op in op_db}


def tally(name: str, op: Any, row: Row, device: torch.device | str = "cpu") -> Tally:
    """Judge every sample of an operator in float64."""
    torch.manual_seed(0)
    samples = op.sample_inputs(device, torch.float64, requires_grad=True)
    return Tally(name, [judge(op, row, sample) for sample in samples])


def judge(op: Any, row: Row, sample: Any) -> Verdict:
    """Compare the layer of one sample, and its kernel, with the operator and its autograd."""
    given = (sample.input, *sample.args)
    tensors = [t for value in (*given, *sample.kwargs.values()) for t in _tensors(value)]
    before = {
        id(t): t.detach().clone() for t in tensors
    }  # an operator may update running statistics
    y = as_tuple(op.op(*given, **sample.kwargs))[0]
    if not isinstance(y, Tensor):
        y = y[0]
    grad_y = random_tensor(y.shape, seed=7, device=y.device)
    leaves = [t for t in tensors if t.requires_grad]
    grads = torch.autograd.grad(y, leaves, grad_y, allow_unused=True)
    truths = {
        id(t): torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)
    }
    after = {id(t): t.detach() for t in tensors}
    with torch.no_grad():
        try:
            use = row(*given, **sample.kwargs)
            plain = {name: _map(value, before) for name, value in use.arguments.items()}
            own = {**use.parameters, **use.states}
            plain = {n: x if n in own else _entered(use, x) for n, x in plain.items()}
            specs = _bound(use, plain)
            kernel = kernel_for(use.layer, specs, y.device, default_registry())
        except GraphnetError as error:
            return Verdict(Status.REFUSED, str(error))
        for implementation in filter(None, (use.layer, kernel)):
            fault = _fault(implementation, use, plain, specs, y.detach(), grad_y, truths, after)
            if fault:
                return Verdict(Status.WRONG, f"{implementation}: {fault}", kernel is not None)
    if use.inference and leaves:
        return Verdict(Status.REFUSED, "a gradient outside training: `inference` states none")
    return Verdict(Status.EQUAL, by_kernel=kernel is not None)


def _bound(use: Use, plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """The specs of a layer's arguments; raises GraphnetError for inputs that it refuses."""
    ports = bind_inputs(use.layer, [_spec(use.enter(x)) for x in use.inputs], torch.float64)
    for name, tensor in {**use.parameters, **use.states}.items():
        declared = ports.specs[name]
        shape = None if declared is None else declared.shape
        assert shape == (None if tensor is None else tuple(tensor.shape)), f"{name}: {shape}"
    _forward(use.layer, use, plain, ports.specs)  # a layer may refuse its inputs there
    return ports.specs


def _forward(
    layer: Layer, use: Use, plain: Mapping[str, Any], specs: Mapping[str, Any]
) -> tuple[Any, ...]:
    infers = use.inference and bool(layer.signature.inference)
    return invoke(layer, "inference" if infers else "forward", {**plain, "specs": specs})


def _fault(
    layer: Layer,
    use: Use,
    plain: Mapping[str, Any],
    specs: Mapping[str, Any],
    y: Tensor,
    grad_y: Tensor,
    truths: Mapping[int, Tensor],
    after: Mapping[int, Tensor],
) -> str:
    """What differs, in words; an empty text if nothing does."""
    results = _forward(layer, use, plain, specs)
    found, truth = use.leave(results[0]), y
    if (error := _error(found, truth)) > BOUND:
        return f"the output differs by {error:.1e}"
    if use.inference:
        return ""
    named = dict(zip(layer.outputs + layer.saves, results, strict=False))
    news = results[len(layer.outputs + layer.saves) :]
    for state, value in zip(layer.updates, news, strict=True):
        truth = after.get(id(use.arguments[state]))
        if truth is not None and (error := _error(value, truth)) > BOUND:
            return f"the new {state} differs by {error:.1e}"
    names = gradient_names(use.layer, specs)
    wanted = {n for n in names if plain[n] is not None and n not in layer.nondifferentiable}
    values = {
        **plain,
        **named,
        "specs": specs,
        "wanted": frozenset(wanted),
        f"grad_{layer.outputs[0]}": use.enter(grad_y),
        **{f"grad_{output}": torch.zeros_like(named[output]) for output in layer.outputs[1:]},
    }
    returned = layer.backward(**{n: values[n] for n in layer.signature.backward})
    gradients = (returned,) if names == (layer.signature.variadic,) else as_tuple(returned)
    # A gradient may be the small difference of terms that are as large as grad_y, as behind a norm.
    terms = float(grad_y.abs().max()) if grad_y.numel() else 0.0
    for name, gradient in zip(names, gradients, strict=True):
        pairs = zip(_tensors(use.arguments[name]), as_tuple(gradient), strict=True)
        for tensor, one in pairs if name in wanted else ():
            truth = truths.get(id(tensor))
            if one is not None and name not in use.parameters:
                one = use.leave(one)
            if truth is not None and (one is None or (error := _error(one, truth, terms)) > BOUND):
                return f"no gradient of {name}" if one is None else f"grad_{name}: {error:.1e}"
    return ""


def _entered(use: Use, value: Any) -> Any:
    return tuple(map(use.enter, value)) if isinstance(value, tuple) else use.enter(value)


def _error(found: Tensor, truth: Tensor, terms: float = 0.0) -> float:
    """The largest difference, relative to the largest entry, or to `terms` where all entries are smaller."""
    if found.shape != truth.shape or found.dtype != truth.dtype:
        return math.inf
    if torch.equal(found, truth):  # also where both are infinite
        return 0.0
    scale = max(float(truth.abs().max()), terms) or 1.0
    error = float((found - truth).abs().max()) / scale
    return math.inf if math.isnan(error) else error


def _spec(x: Tensor) -> Spec:
    return Spec(tuple(x.shape), x.dtype, x.device)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _map(value: Any, before: Mapping[int, Tensor]) -> Any:
    """The value with each tensor detached, as it was before the operator ran."""
    if isinstance(value, (tuple, list)):
        return tuple(_map(part, before) for part in value)
    if isinstance(value, Tensor):
        return before[id(value)] if id(value) in before else value.detach()
    return value

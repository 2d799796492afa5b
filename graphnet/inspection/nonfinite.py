"""Non-finite values: find the call that computed the first NaN or infinity of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphnet.graph import Call, Kind
from graphnet.inspection.walk import complete, walk
from graphnet.passes import FINITE, GRAD, SCALE
from graphnet.plan import Plan
from graphnet.sdk import IfFinite, MultiTensorKernel, Registry, registry_or_default

_PASS = {
    Kind.LAYER: "forward pass",
    Kind.LOSS: "loss",
    Kind.BACKWARD: "reverse pass",
    Kind.ACCUMULATE: "reverse pass",
    Kind.SCALE: "update",
    Kind.UPDATE: "update",
}


@dataclass(frozen=True, slots=True)
class Statistics:
    """The minimum, maximum and mean of a tensor's finite elements, and the share of the others, 0 to 1.

    >>> str(Statistics.of(torch.tensor([1.0, 3.0, torch.inf, torch.nan])))
    'min 1, max 3, mean 2, 50 % not finite'
    """

    minimum: float
    maximum: float
    mean: float
    nonfinite: float

    @classmethod
    def of(cls, tensor: Tensor) -> Statistics:
        finite = tensor[tensor.isfinite()].double()
        if not finite.numel():
            return cls(torch.nan, torch.nan, torch.nan, float(tensor.numel() > 0))
        share = 1 - finite.numel() / tensor.numel()
        return cls(float(finite.min()), float(finite.max()), float(finite.mean()), share)

    def __str__(self) -> str:
        if self.nonfinite == 1:
            return "100 % not finite"
        share = f", {100 * self.nonfinite:.3g} % not finite" if self.nonfinite else ""
        return f"min {self.minimum:.3g}, max {self.maximum:.3g}, mean {self.mean:.3g}{share}"


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first value of a step that is not finite, and the call that computed it.

    Args:
        value: the name of the value.
        statistics: its statistics.
        call: the call that computed it; None for an argument of the plan.
        plugin: the name and version of the distribution that the call's layer belongs to.
        inputs: the statistics of the values that the call read, by name.
        kind: the kind of the call, or of the argument.
        samples: for an input or target, the indices of the samples that are not finite.
        argument: for an argument, its kind and name.
    """

    value: str
    statistics: Statistics
    call: Call | None = None
    plugin: str = ""
    inputs: Mapping[str, Statistics] | None = None
    kind: Kind = Kind.INPUT
    samples: tuple[int, ...] = ()
    argument: str = ""

    def __str__(self) -> str:
        share = f"{100 * self.statistics.nonfinite:.3g} % of its elements"
        if self.call is None:
            some = ", ".join(map(str, self.samples[:5])) + (
                ", ..." if len(self.samples) > 5 else ""
            )
            of = f" of sample {some} (counted from 0)" if some else ""
            return f"the {self.argument}{of} is not finite ({share}) when the step begins"
        read = ", ".join(f"{name} ({found})" for name, found in (self.inputs or {}).items())
        where = f"{self.call.where}: " if self.call.where else ""
        return (
            f"{where}in the {_PASS[self.call.kind]}, node {self.call.node!r} ({self.call.title}, from "
            f"{self.plugin}) made the first value that is not finite, {self.value!r} ({share}), "
            f"from {read or 'constants'}"
        )


def first_nonfinite(
    plan: Plan,
    tensors: Mapping[str, Tensor],
    *,
    registry: Registry | None = None,
    gradients: bool = False,
) -> NonFinite | None:
    """Find the origin of the NaN or infinity that reaches the loss or an update; None if all is finite.

    The origin is an argument that is not finite, or the call that computed a value that is not finite from
    finite ones. A NaN or infinity that disappears again, such as -inf before a softmax, is not reported. A
    plan of several processes runs to its end in each, and a number that came from another is not reported.

    Args:
        plan: the plan; it runs on the reference executor.
        tensors: the plan's arguments by name; `complete` supplies missing ones. They are not changed.
        registry: tells which plugin a layer belongs to; None takes the installed plugins.
        gradients: whether to report gradients too for which the loss scale of float16 skips an update.

    >>> from graphnet import Model
    >>> plan = Model({"layers": ["relu"]}).plan((1, 1, 2, 2), loss="mse")
    >>> data = {"$input": torch.full((1, 1, 2, 2), 1e30), "@target": torch.zeros(1, 1, 2, 2)}
    >>> first_nonfinite(plan, complete(plan, data)).value
    '@loss.loss'
    """
    tensors = complete(plan, tensors)
    slots = plan.slots
    skipped = {n for n in slots if plan.values[n].role == GRAD} if SCALE in slots else set()
    ends = {*plan.outputs}
    if gradients:
        ends |= {name for step in plan.steps for name in _checked(step.call)}
    # The other processes of a training wait for this one's part in each sum, so the plan runs to its end.
    together = any(step.call.kind is Kind.COLLECTIVE for step in plan.steps)
    first = _first_argument(plan, tensors, skipped)
    if first is not None and not together:
        return first
    origins: dict[str, NonFinite | None] = {}  # None if another process has sent the value
    for step, values in walk(plan, tensors):
        call = step.call
        inherited = [origins[read] for read in call.reads() if read in origins]
        known = next(filter(None, inherited), None)
        made = tuple(
            call.writes[name] if plan.values[name].kind is Kind.UPDATE else name
            for name in call.makes()
        )
        if call.kind is Kind.COLLECTIVE:  # its result may only be read after the wait
            origins |= dict.fromkeys(made, known)
            continue
        for name in made:
            if not _is_nonfinite(values[name]):
                continue
            if inherited:
                origins[name] = known
            else:
                one = _single(call, name, plan.values[name].node)
                origins[name] = _origin(one, name, values, tensors, registry_or_default(registry))
            lasts = call.kind is Kind.UPDATE or name not in plan.last_use
            if name in ends or (lasts and (gradients or name not in skipped)):
                first = first or origins[name]
                if not together:
                    return first
    return first


def _first_argument(
    plan: Plan, tensors: Mapping[str, Tensor], skipped: set[str]
) -> NonFinite | None:
    """The first argument that is not finite."""
    for name, tensor in tensors.items():
        if _is_nonfinite(tensor) and name not in skipped:
            value = plan.values[name]
            samples = _samples(tensor) if value.kind is Kind.INPUT else ()
            word = "target" if value.port == "target" else value.kind
            return NonFinite(
                name,
                Statistics.of(tensor),
                kind=value.kind,
                samples=samples,
                argument=f"{word} {value.label!r}",
            )
    return None


def _checked(call: Call) -> Iterator[str]:
    """Return the gradients that must be finite for an update with a loss scale."""
    return call.reads() if FINITE in call.makes() else iter(())


def _samples(tensor: Tensor) -> tuple[int, ...]:
    """Return the indices along the first axis at which an element is not finite."""
    found = tensor.isfinite().logical_not().reshape(tensor.shape[0], -1).any(1)
    return tuple(int(i) for i in found.nonzero())


def _is_nonfinite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(tensor.isfinite().all())


def _origin(
    call: Call,
    name: str,
    values: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    registry: Registry,
) -> NonFinite:
    entry = registry.entry_of(type(call.layer))
    plugin = f"{entry.plugin.distribution} {entry.plugin.version}" if entry else "graphnet itself"
    read = {}
    for argument in call.reads():
        # An update has overwritten the tensor that it read; `before` has the old numbers.
        tensor = before[argument] if argument in call.writes.values() else values[argument]
        read[argument] = Statistics.of(tensor)
    return NonFinite(name, Statistics.of(values[name]), call, plugin, read, call.kind)


def _single(call: Call, name: str, node: str) -> Call:
    """Reduce a call that computes many tensors to the part for `name`; return other calls unchanged."""
    if isinstance(call.layer, IfFinite):
        call = replace(call, layer=call.layer.rule, args=call.args[1:])
    if not isinstance(call.layer, MultiTensorKernel):
        return call
    columns = [column for column in (*call.args, call.results) if isinstance(column, tuple)]
    place = next(column.index(name) for column in columns if name in column)
    args = tuple(arg[place] if isinstance(arg, tuple) else arg for arg in call.args)
    return replace(call, args=args, node=node)

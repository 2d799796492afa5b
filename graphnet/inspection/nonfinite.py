"""Nonfinite: find the call that made the first value that is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphnet.graph import Call, Kind
from graphnet.inspection.walk import complete, walk
from graphnet.passes import FINITE, GRAD, SCALE
from graphnet.plan import Plan
from graphnet.sdk import IfFinite, MultiTensorKernel, Registry, default_registry

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
    """What a tensor holds: smallest, largest and mean of its finite elements, share of the others.

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
    """Where the first NaN or Inf came from: a value, what it holds, and the call that made it.

    `call` is None for one that came in as an argument of the plan, which `argument` names. `inputs` are
    the statistics of what the call read; `samples` the places along the first axis where an input is not
    finite.
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
            return f"the {self.argument}{of} is not finite ({share}) to begin with"
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
    """Where the NaN or Inf that reaches the loss or an update comes from; None if all is finite.

    `tensors` are the plan's arguments by name, as `complete` makes them; they are not written. An
    argument that is not finite is the answer; else the step that made a bad value out of good ones.
    A bad value that a later step makes good, such as the -inf of a mask before a softmax, is no fault.
    Nor are gradients in float16 that are passed over, without an update: `gradients` asks for those too.
    `registry` tells the plugin's name.

    >>> from graphnet import Model
    >>> plan = Model({"layers": ["relu"]}).plan((1, 1, 2, 2), loss="mse")
    >>> data = {"$input": torch.full((1, 1, 2, 2), 1e30), "@target": torch.zeros(1, 1, 2, 2)}
    >>> first_nonfinite(plan, complete(plan, data)).value
    '@loss.loss'
    """
    tensors = complete(plan, tensors)
    slots = plan.slots
    passing = {n for n in slots if plan.values[n].role == GRAD} if SCALE in slots else set()
    ends = {*plan.outputs}
    if gradients:
        ends |= {name for step in plan.steps for name in _checked(step.call)}
    for name, tensor in tensors.items():
        if _bad(tensor) and name not in passing:
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
    origins: dict[str, NonFinite] = {}
    for step, values in walk(plan, tensors):
        call = step.call
        made = tuple(call.writes.values()) if call.kind is Kind.UPDATE else tuple(call.makes())
        for name in made:
            if not _bad(values[name]):
                continue
            inherited = [origins[read] for read in call.reads() if read in origins]
            if inherited:
                origins[name] = inherited[0]
            else:
                one = _one_of(call, name, plan.values[name].node)
                origins[name] = _origin(one, name, values, tensors, registry or default_registry())
            lasts = call.kind is Kind.UPDATE or name not in plan.last_use
            if name in ends or (lasts and (gradients or name not in passing)):
                return origins[name]
    return None


def _checked(call: Call) -> Iterator[str]:
    """The gradients that the loss scale wants to be finite."""
    return call.reads() if FINITE in call.makes() else iter(())


def _samples(tensor: Tensor) -> tuple[int, ...]:
    """The places along the first axis that hold something not finite."""
    bad = tensor.isfinite().logical_not().reshape(tensor.shape[0], -1).any(1)
    return tuple(int(i) for i in bad.nonzero())


def _bad(tensor: Tensor) -> bool:
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
        # An update has overwritten its slot: what it read is the old content.
        tensor = before[argument] if argument in call.writes.values() else values[argument]
        read[argument] = Statistics.of(tensor)
    return NonFinite(name, Statistics.of(values[name]), call, plugin, read, call.kind)


def _one_of(call: Call, name: str, node: str) -> Call:
    """Of a call for many tensors, the part that made this one, of `node`; any other call as it is."""
    if isinstance(call.layer, IfFinite):
        call = replace(call, layer=call.layer.rule, args=call.args[1:])
    if not isinstance(call.layer, MultiTensorKernel):
        return call
    columns = [column for column in (*call.args, call.results) if isinstance(column, tuple)]
    place = next(column.index(name) for column in columns if name in column)
    args = tuple(arg[place] if isinstance(arg, tuple) else arg for arg in call.args)
    return replace(call, args=args, node=node)

"""Together: on a GPU, the updates of all parameters that go by one rule become one call.

The update of a few thousand weights takes less time than launching its operators, and torch's fused
optimizers launch once for all tensors. All gradients are alive until the last of them is there: on a CPU,
where a call costs little and memory counts, updates stay apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch

from graphnet.graph import Arg, Call, Graph, Kind
from graphnet.optim import Optimizer

_SHARED = frozenset({"lr", "step"})


def together(graph: Graph, *, devices: Collection[str] = ("cuda",)) -> Graph:
    """Gather updates of float32 parameters on such devices, by rules that define `update_many`."""
    groups: dict[object, list[Call]] = {}
    for call in graph.calls.values():
        rule = call.layer
        if call.kind is not Kind.UPDATE or not isinstance(rule, Optimizer):
            continue
        specs = [graph.values[slot].spec for slot in call.writes.values()]
        fits = all(s.device.type in devices and s.dtype == torch.float32 for s in specs)
        if fits and "update_many" in vars(type(rule)):
            arguments = zip(rule.arguments, call.args, strict=True)
            shared = tuple(arg for name, arg in arguments if name in _SHARED)
            groups.setdefault((rule, shared, specs[0].device), []).append(call)
    gathered = {
        call.name: one
        for calls in groups.values()
        if len(calls) > 1
        for one in [_gathered(calls)]
        for call in calls
    }
    if not gathered:
        return graph
    calls: dict[str, Call] = {}
    for name, call in graph.calls.items():
        one = gathered.get(name, call)
        calls.pop(one.name, None)  # it runs where the last of its updates did
        calls[one.name] = _after(one, gathered)
    return replace(graph, calls=calls)


def _gathered(calls: list[Call]) -> Call:
    first = calls[0]
    assert isinstance(first.layer, Optimizer)
    args: list[Arg] = []
    columns = zip(*(call.args for call in calls), strict=True)
    for name, column in zip(first.layer.arguments, columns, strict=True):
        apart = name not in _SHARED and isinstance(column[0], str)
        args.append(tuple(str(arg) for arg in column) if apart else column[0])
    return replace(
        first,
        name=f"{first.title}:{first.name}",
        method="update_many",
        args=tuple(args),
        results=tuple(result for call in calls for result in call.results),
        node=f"{len(calls)} parameters",
        writes={new: slot for call in calls for new, slot in call.writes.items()},
        after=tuple(dict.fromkeys(name for call in calls for name in call.after)),
    )


def _after(call: Call, gathered: Mapping[str, Call]) -> Call:
    """The call, waiting for what its predecessors have become; never for itself."""
    after = dict.fromkeys(gathered[n].name if n in gathered else n for n in call.after)
    after.pop(call.name, None)
    return replace(call, after=tuple(after)) if tuple(after) != call.after else call

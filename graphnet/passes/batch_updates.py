"""Batch updates: calls with equal rules on different tensors become one call of a multi-tensor kernel.

The pass gathers updates, the casts of parameters at the start of a step, and the products of all gradients
with one factor. A kernel states which rule it replaces and on which devices. The built-in ones are for
GPUs, where the launch of an update takes longer than its computation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from graphnet.errors import blame
from graphnet.graph import Arg, Call, Const, Graph, Kind
from graphnet.passes.rewrite import before_cast
from graphnet.sdk import COMMON, Entry, arguments_of, matched


def batch_updates(graph: Graph, *, kernels: Sequence[Entry]) -> Graph:
    """Replace each group of calls that a kernel matches by one call; the first match is used."""
    ruled = {entry.value.replaces for entry in kernels}
    groups: dict[object, list[Call]] = {}
    for call in graph.calls.values():
        if type(call.layer) in ruled and _may_be_gathered(call, graph):
            spec = graph.values[_first(call)].spec
            common = tuple(arg if shared else "" for arg, shared in _arguments(call))
            key = (call.layer, call.kind, common, spec.device, spec.dtype)
            groups.setdefault(key, []).append(call)
    gathered = {
        call.name: one
        for calls in groups.values()
        if len(calls) > 1 and (one := _gathered(calls, graph, kernels)) is not None
        for call in calls
    }
    if not gathered:
        return graph
    calls: dict[str, Call] = {}
    for name, call in graph.calls.items():
        one = gathered.get(name, call)
        if one.kind is Kind.UPDATE:
            calls.pop(one.name, None)  # it runs where the last of its updates ran
        calls.setdefault(one.name, _after(one, gathered))
    read = {name for call in calls.values() for name in call.reads()}
    gradients = {
        parameter: name if name in read else _uncast(name, graph)
        for parameter, name in graph.gradients.items()
    }
    return replace(graph, calls=calls, gradients=gradients)


def _may_be_gathered(call: Call, graph: Graph) -> bool:
    """Whether a call is an update, a scaling of a gradient or a cast of a parameter.

    No other call of its group waits for the result of such a call.
    """
    if call.kind in (Kind.UPDATE, Kind.SCALE):
        return True
    reads = {graph.values[name].kind for name in call.reads()}
    return call.method == "forward" and bool(reads) and reads <= {Kind.PARAMETER, Kind.FROZEN}


def _first(call: Call) -> str:
    return next(call.reads())


def _arguments(call: Call) -> Iterator[tuple[Arg, bool]]:
    """Yield each argument, and whether all calls of a group share it."""
    for name, arg in zip(arguments_of(type(call.layer)), call.args, strict=True):
        yield arg, name in COMMON or isinstance(arg, Const)


def _gathered(calls: Sequence[Call], graph: Graph, kernels: Iterable[Entry]) -> Call | None:
    """One call in the place of these, with the first kernel that matches them; None if no kernel does."""
    first = calls[0]
    specs = [graph.values[_first(call)].spec for call in calls]
    for entry in kernels:
        if entry.value.replaces is not type(first.layer):
            continue
        with blame(f"kernel {entry.name!r}: ", "match"):
            kernel = matched(entry.value, first.layer, specs)
        if kernel is not None:
            break
    else:
        return None
    args: list[Arg] = []
    columns = zip(*(call.args for call in calls), strict=True)
    for (arg, shared), column in zip(_arguments(first), columns, strict=True):
        if shared:
            args.append(arg)
        else:
            own = (str(one) for one in column)
            args.append(tuple(_uncast(name, graph) if kernel.casts else name for name in own))
    return replace(
        first,
        name=f"{first.title}:{first.name}",
        layer=kernel,
        method="run",
        args=tuple(args),
        results=tuple(result for call in calls for result in call.results),
        title=f"{first.title} [{entry.name.partition('/')[0]}]",
        node=f"{len(calls)} parameters",
        writes={new: slot for call in calls for new, slot in call.writes.items()},
        after=tuple(dict.fromkeys(name for call in calls for name in call.after)),
    )


def _uncast(name: str, graph: Graph) -> str:
    """The value before a cast to a wider dtype; without such a cast, the value itself."""
    source = before_cast(name, graph)
    if source is None:
        return name
    narrower = graph.values[source].spec.dtype.itemsize < graph.values[name].spec.dtype.itemsize
    return source if narrower else name


def _after(call: Call, gathered: Mapping[str, Call]) -> Call:
    """The call, with the names in `after` replaced by those of the gathered calls, without its own."""
    after = dict.fromkeys(gathered[n].name if n in gathered else n for n in call.after)
    after.pop(call.name, None)
    return replace(call, after=tuple(after)) if tuple(after) != call.after else call

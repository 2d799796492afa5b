"""Plan: frozen, ordered steps; what each frees after its last use; and the source made from them.

A plan is inert data. `schedule` makes one from a graph; `verify.verify` checks it and shares no code with
`schedule`; executors run it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from graphnet.graph import SLOTS, Call, Graph, Kind, MemoryUse, Value, memory_use
from graphnet.passes import Change
from graphnet.system import bytes_text


@dataclass(frozen=True, slots=True)
class Step:
    """One call and the values that nothing reads afterwards."""

    call: Call
    frees: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The steps of one run, and the tensors that go in: `arguments`, in this order.

    Arguments are the inputs and targets, then the scalars, constants, parameters and states, then what
    `prelude`, a plan of its own, makes of those: it runs before the first run, and again whenever they
    have changed. `changes` tell what each pass of the compiler did on the way, `refused` which kernels
    lost at which calls when they were timed.
    """

    steps: tuple[Step, ...]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    prelude: Plan | None = None
    changes: tuple[Change, ...] = field(default=(), compare=False, repr=False)
    refused: tuple[tuple[str, str], ...] = ()

    def of(self, *kinds: Kind) -> tuple[str, ...]:
        """The names of the values of these kinds, in the order they were first used."""
        return tuple(name for name, value in self.values.items() if value.kind in kinds)

    @functools.cached_property
    def arguments(self) -> tuple[str, ...]:
        """What the plan's function takes, in order."""
        rest = (Kind.SCALAR,), (Kind.CONSTANT,), tuple(SLOTS), (Kind.PRELUDE,)
        return self.inputs + tuple(name for kinds in rest for name in self.of(*kinds))

    @property
    def slots(self) -> tuple[str, ...]:
        """The values that outlive a run: parameters and states."""
        return self.of(*SLOTS)

    @functools.cached_property
    def last_use(self) -> Mapping[str, int]:
        """Value -> the position of the last step that reads it."""
        return {name: i for i, step in enumerate(self.steps) for name in step.call.reads()}

    def storage(self, name: str) -> str:
        """The value whose storage `name` lives in: itself, unless it is a view."""
        while (base := self.values[name].view_of) is not None:
            name = base
        return name

    @functools.cached_property
    def memory_use(self) -> MemoryUse:
        """From when to when each storage is alive; inputs and slots are all the time."""
        fixed = sum(self.values[name].spec.size_bytes for name in self.arguments)
        calls = [step.call for step in self.steps]
        return memory_use(calls, self.values, self.outputs, fixed_bytes=fixed)

    def memory(self) -> tuple[int, ...]:
        """The bytes alive during each step: inputs, slots, every value made and not yet freed.

        What a step holds on the way to its results counts too, as far as its layer's own operators show, and
        the columns of torch's convolutions on a CPU; not the work buffers of libraries.
        """
        return tuple(self.memory_use.lifetimes.memory)

    @property
    def peak_bytes(self) -> int:
        """The largest of `memory`: what the plan needs at its worst moment."""
        return max(self.memory(), default=0)

    def __str__(self) -> str:
        return f"{len(self.steps)} steps, peak {bytes_text(self.peak_bytes)}"


def schedule(graph: Graph) -> Plan:
    """Order the calls of a graph and free each value after its last use.

    Equal graphs give equal plans: ties are broken by the order in which the calls were made.
    """
    order = graph.order()
    outlive = set(graph.outputs)
    last: dict[str, int] = {}
    for position, call in enumerate(order):
        made = () if call.kind is Kind.UPDATE else call.makes()
        for name in (*made, *call.reads()):
            last[name] = position
    frees: dict[int, list[str]] = {}
    for name, position in last.items():
        maker = graph.producers.get(name)
        if maker is not None and maker.kind is not Kind.UPDATE and name not in outlive:
            frees.setdefault(position, []).append(name)
    used = {name for call in order for name in (*call.reads(), *call.makes())}
    return Plan(
        steps=tuple(Step(call, tuple(frees.get(i, ()))) for i, call in enumerate(order)),
        values={
            name: value
            for name, value in graph.values.items()
            if name in used or value.kind in SLOTS or name in graph.inputs + graph.targets
        },
        inputs=graph.inputs + graph.targets,
        outputs=graph.outputs,
        prelude=None if graph.prelude is None else schedule(graph.prelude),
    )

"""Plan: frozen steps in order, with the values that each step frees.

A plan is data without behaviour. `schedule` makes a plan from a graph; `verify.verify`, which shares no code
with `schedule`, checks it; executors run it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from graphnet.errors import InputError
from graphnet.graph import SLOTS, Call, Graph, Kind, MemoryUse, Value, memory_use
from graphnet.passes import Change
from graphnet.system import bytes_text, html_table


@dataclass(frozen=True, slots=True)
class Step:
    """One call, and the values that no later step reads."""

    call: Call
    frees: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Plan:
    """The steps of one run, in order, and the values that they read and make.

    The arguments of a run are the inputs and targets, then scalars, constants, parameters and states, then
    the outputs of `prelude`. The prelude is a plan of its own, which runs before the first run and again
    whenever parameters or states have changed. `changes` say what each pass changed.
    """

    steps: tuple[Step, ...]
    values: Mapping[str, Value]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    prelude: Plan | None = None
    changes: tuple[Change, ...] = field(default=(), compare=False, repr=False)

    def of(self, *kinds: Kind) -> tuple[str, ...]:
        """The names of the values of these kinds, in the order of first use."""
        return tuple(name for name, value in self.values.items() if value.kind in kinds)

    @functools.cached_property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments of a run, in order."""
        rest = (Kind.SCALAR,), (Kind.CONSTANT,), tuple(SLOTS), (Kind.PRELUDE,)
        return self.inputs + tuple(name for kinds in rest for name in self.of(*kinds))

    @property
    def device(self) -> torch.device:
        """The device that the plan runs on."""
        return next((value.spec.device for value in self.values.values()), torch.device("cpu"))

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the parameters and states, which outlive a run."""
        return self.of(*SLOTS)

    @functools.cached_property
    def last_use(self) -> Mapping[str, int]:
        """Value -> the position of the last step that reads it."""
        return {name: i for i, step in enumerate(self.steps) for name in step.call.reads()}

    def storage(self, name: str) -> str:
        """The value whose storage `name` uses: itself, unless it is a view."""
        while (base := self.values[name].view_of) is not None:
            name = base
        return name

    @functools.cached_property
    def memory_use(self) -> MemoryUse:
        """The lifetime of each storage; the arguments are alive all the time."""
        fixed = sum(self.values[name].spec.size_bytes for name in self.arguments)
        calls = [step.call for step in self.steps]
        return memory_use(calls, self.values, self.outputs, fixed_bytes=fixed)

    def memory(self) -> tuple[int, ...]:
        """The bytes alive during each step: the arguments, and every value that is made and not yet freed.

        The tensors that a layer makes during the step count too, and the columns of torch's convolutions on
        a CPU. The work buffers of libraries do not count.
        """
        return tuple(self.memory_use.lifetimes.memory)

    @property
    def peak_bytes(self) -> int:
        """The largest of `memory`: the bytes that a run needs."""
        return max(self.memory(), default=0)

    def __str__(self) -> str:
        return f"{len(self.steps)} steps, peak {bytes_text(self.peak_bytes)}"

    def __repr__(self) -> str:
        return f"Plan({self})"

    def _repr_html_(self) -> str:
        rows = [
            (step.call.name, step.call.title, str(step.call.kind), made, bytes_text(alive))
            for step, alive in zip(self.steps, self.memory(), strict=True)
            for made in [", ".join(str(self.values[name].spec) for name in step.call.makes())]
        ]
        return html_table(("step", "layer", "kind", "makes", "alive"), rows, str(self))


def check_plan(found: object, where: str) -> None:
    """Raise InputError unless this is a plan; `where` says which function takes it."""
    if not isinstance(found, Plan):
        raise InputError(
            f"{where} takes a plan, got a {type(found).__name__}. A plan is for inputs of given shapes: "
            f"model.plan((1, 3, 64, 64)), or program.plan."
        )


def schedule(graph: Graph) -> Plan:
    """Put the calls of a graph in order, and free each value after its last use.

    Equal graphs give equal plans: among calls that can run, the one that was added first runs first.
    """
    order = graph.order()
    outlive = set(graph.outputs)
    last: dict[str, int] = {}
    for position, call in enumerate(order):
        for name in (*call.makes(), *call.reads()):
            last[name] = position
    frees: dict[int, list[str]] = {}
    for name, position in last.items():
        in_slot = graph.values[name].kind is Kind.UPDATE
        if name in graph.producers and not in_slot and name not in outlive:
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

"""Codegen: write a plan as one Python function without branches; every executor runs this text.

    def step(x, target, lr, one, conv2d_1_weight, conv2d_1_bias):
        # c1: conv2d [aten] -> 32x64x16x16 float32
        conv2d_1_y = conv2d_1_forward(x, conv2d_1_weight, conv2d_1_bias)
        ...
        return (loss,)

All names are made here from the names of layers and ports; no name comes from a file.
"""

from __future__ import annotations

import keyword
import re
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphnet.graph import Arg, Call, Const, Kind, Slot, flatten, star_of
from graphnet.plan.plan import Plan, Step
from graphnet.sdk import Definition, Layer


@dataclass(frozen=True)
class Source:
    """The text of the function `step`, the objects behind its names, and line number -> step."""

    text: str
    namespace: Mapping[str, Any]
    lines: Mapping[int, Step]


def generate(plan: Plan) -> Source:
    """Write a plan as a Python function `step`."""
    return _Writer(plan).write()


def unique(wanted: str, taken: set[str]) -> str:
    """The name, with a number appended if it is taken; adds the result to `taken`.

    A name that Python does not allow, such as that of an input "class", gets a prefix.
    """
    if not wanted.isidentifier() or keyword.iskeyword(wanted):
        wanted = f"n_{wanted}"
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


class _Writer:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.namespace: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()
        self.nodes: dict[str, str] = {}
        self.numbers: Counter[str] = Counter()
        self.lines: list[str] = []
        self.steps: dict[int, Step] = {}
        self.methods: dict[tuple[Definition, str], Any] = {}

    def write(self) -> Source:
        for step in self.plan.steps:
            if step.call.kind is not Kind.UPDATE:
                self.node(step.call)
        # The parameters of a fused node have the names of nodes that fusion has removed.
        for step in self.plan.steps:
            for name in step.call.reads():
                self.adopt(self.plan.values[name].node, step.call)
        arguments = ", ".join(self.value(name) for name in self.plan.arguments)
        head = textwrap.wrap(f"def step({arguments}):", 100, subsequent_indent=" " * 9)
        self.lines.extend(head)
        for step in self.plan.steps:
            self.step(step)
        outputs = ", ".join(self.value(name) for name in self.plan.outputs)
        self.lines.append(f"    return ({outputs},)")
        return Source("\n".join(self.lines) + "\n", self.namespace, self.steps)

    def node(self, call: Call) -> str:
        """The identifier of a node of the description: the name of its layer and a number."""
        if call.node not in self.nodes:
            base = re.sub(r"\W.*", "", call.title.rpartition("/")[2]) or "node"
            self.numbers[base] += 1
            self.nodes[call.node] = f"{base}_{self.numbers[base]}"
        return self.nodes[call.node]

    def adopt(self, node: str, reader: Call) -> None:
        """Give a removed node, whose values still exist, the identifier of the node that reads them."""
        if node and node not in self.nodes and reader.node in self.nodes:
            self.nodes[node] = self.nodes[reader.node]

    def value(self, name: str) -> str:
        """The identifier of a value, made from its node and its port."""
        if (known := self.plan.values[name]).kind is Kind.UPDATE:
            return self.value(str(known.view_of))  # the result of an update is in its slot
        if name not in self.names:
            port = re.sub(r"\W+", "_", known.port or name).strip("_")
            if known.kind is Kind.INPUT:
                wanted = port if known.port else "x"
            elif known.node in self.nodes:
                wanted = f"{self.nodes[known.node]}_{port}"
            else:
                wanted = port
            self.names[name] = self.unique(wanted)
        return self.names[name]

    def unique(self, wanted: str) -> str:
        return unique(wanted, self.taken)

    def step(self, step: Step) -> None:
        call = step.call
        self.steps[len(self.lines) + 2] = step
        self.lines.append(f"    # {self.comment(call)}")
        function = self.unique(f"{self.node(call)}_{self.verb(call)}")
        # Equal layers share one object, so that it stays in the processor's cache.
        method = getattr(call.layer, call.function)
        self.namespace[function] = self.methods.setdefault((call.layer, call.function), method)
        expression = f"{function}({self.arguments(call, function)})"
        if call.kind is Kind.UPDATE:
            self.lines.append(f"    {expression}")
            for new, target in call.writes.items():
                if self.plan.values[new].kind is not Kind.UPDATE:  # it writes a value of this step
                    self.lines.append(f"    {self.value(new)} = {self.value(target)}")
        else:
            self.lines.append(f"    {self.targets(call)} = {expression}")
        discarded = call.kind is not Kind.UPDATE and self.discards(call.results)
        frees = [self.value(name) for name in step.frees] + (["_"] if discarded else [])
        if frees:
            self.lines.append(f"    del {', '.join(frees)}")

    def verb(self, call: Call) -> str:
        if call.port:  # "weight:update"
            return re.sub(r"\W+", "_", call.port)
        named = (Kind.KEY, Kind.ACCUMULATE, Kind.COLLECTIVE, Kind.WAIT, Kind.SCALE)
        return str(call.kind) if call.kind in named else call.function

    def comment(self, call: Call) -> str:
        made = [name for name in call.makes() if call.kind is not Kind.UPDATE]
        shapes = ", ".join(str(self.plan.values[name].spec) for name in made)
        return f"{call.name}: {call.title}{f' -> {shapes}' if shapes else ''}"

    def arguments(self, call: Call, function: str) -> str:
        star = star_of(call.layer, call.method)
        unnamed = ("",) * len(call.args)
        names = call.layer.signature.of(call.method) if isinstance(call.layer, Layer) else unnamed
        written: list[str] = []
        for position, (name, arg) in enumerate(zip(names, call.args, strict=True)):
            if position == star:
                written.extend(self.value(value) for value in flatten((arg,)))
            else:
                text = self.argument(arg, f"{function}_{name}")
                written.append(f"{name}={text}" if star is not None and position > star else text)
        return ", ".join(written)

    def argument(self, arg: Arg, name: str) -> str:
        match arg:
            case str():
                return self.value(arg)
            case tuple():
                return f"({''.join(f'{self.value(value)}, ' for value in arg)})"
            case Const(value=None):
                return "None"
            case Const(value=value):
                constant = self.unique(name)
                self.namespace[constant] = value
                return constant

    def targets(self, call: Call) -> str:
        def target(slot: Slot) -> str:
            if isinstance(slot, tuple):
                return f"({''.join(f'{target(one)}, ' for one in slot)})"
            return "_" if slot is None else self.value(slot)

        written = [target(slot) for slot in call.results]
        if len(written) == 1 and self.returns_tuple(call):
            return f"({written[0]},)"
        return ", ".join(written)

    def returns_tuple(self, call: Call) -> bool:
        """Whether a single result is returned in a tuple, as the gradients of `*xs` are."""
        if call.kind is not Kind.BACKWARD or not isinstance(call.layer, Layer):
            return False
        return call.layer.signature.variadic is not None

    def discards(self, results: tuple[Slot, ...]) -> bool:
        return any(
            self.discards(slot) if isinstance(slot, tuple) else slot is None for slot in results
        )

"""Standalone: a plan of inference as Python source that needs torch alone, with the code of its layers."""

from __future__ import annotations

import builtins
import dis
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, MethodType

from graphnet.errors import SourceError
from graphnet.graph import SLOTS, Call, Kind
from graphnet.plan.codegen import generate
from graphnet.plan.copies import Copies, provided
from graphnet.plan.layer_copies import FIELDS, LayerCopies
from graphnet.plan.literal import wrapped
from graphnet.plan.plan import Plan, check_plan
from graphnet.sdk import Definition

_BASE = f'''\
class {FIELDS}:
    """Sets the fields of a layer, which are given by name."""

    def __init__(self, **fields):
        vars(self).update(fields)
'''


@dataclass(frozen=True)
class Standalone:
    """The parts of a Python module that runs a plan.

    Attributes:
        imports: the statements that import from torch and Python's library, in order.
        step: the function `step`, which runs the plan.
        layers: the classes of the layers, what they need, and the layers themselves.
        inputs: the names of step's first arguments, one for each input of the plan.
        slots: the names of its other arguments -> the plan's parameter or state.
        modules: the modules that code was copied from.
    """

    imports: str
    step: str
    layers: str
    inputs: tuple[str, ...]
    slots: Mapping[str, str]
    modules: frozenset[str]


def standalone(
    plan: Plan, *, packages: Collection[str], imports: Collection[tuple[str, str]] = ()
) -> Standalone:
    """Write a plan of inference as the parts of a Python module that imports torch alone.

    The code of each layer is copied with all that it needs, without its reverse pass.

    Args:
        plan: a plan without passes that compute ahead: without hoist_constants and fold_affine.
        packages: the packages, beside graphnet's, whose modules of layers may be copied.
        imports: what the rest of the module imports, as (module, name); an empty name is the module.

    Raises:
        SourceError: layers need code that cannot be copied, such as a compiled kernel or another library.
            The error names every such layer, and why.
    """
    check_plan(plan, "standalone")
    source = generate(plan)
    for step in plan.steps:
        if step.call.kind in (Kind.KEY, Kind.UPDATE):
            raise SourceError(
                f"{_place(step.call)}draws random numbers, or changes weights, also in a prediction; a "
                f"standalone network cannot"
            )
    if ahead := plan.of(Kind.CONSTANT, Kind.SCALAR, Kind.PRELUDE):
        raise SourceError(f"a standalone network has inputs and weights only, found {ahead[0]!r}")
    taken = {"step", FIELDS, *RESERVED, *vars(builtins), *source.namespace}
    layers = LayerCopies(Copies(packages, taken))
    for module, name in imports:
        layers.copies.provide(module, name)
    users = _users(plan)
    aliases: list[str] = []
    problems: list[str] = []
    for name, value in source.namespace.items():
        try:
            if isinstance(value, MethodType) and isinstance(value.__self__, Definition):
                written = f"{layers.instance(value.__self__, value.__name__)}.{value.__name__}"
            else:
                written = layers.literal(value)
            aliases.append(wrapped(f"{name} = {written}"))
        except SourceError as error:
            call = users.get(id(getattr(value, "__self__", value)))
            problems.append(f"{_place(call) if call else ''}{error}")
    if problems:
        raise SourceError("\n".join(dict.fromkeys(problems)))
    made = [wrapped(f"{name} = {written}") for written, name in layers.instances.items()]
    parts = [*layers.copies.texts, _BASE, *layers.classes()]
    names = re.findall(r"\w+", source.text.partition("(")[2].partition("):")[0])
    return Standalone(
        imports=_sorted(layers.copies.imports.values()),
        step=_narrow(source.text),
        layers="\n\n".join(parts) + "\n\n" + "\n".join([*made, "", *aliases]) + "\n",
        inputs=tuple(names[: len(plan.inputs)]),
        slots=dict(zip(names[len(plan.inputs) :], plan.of(*SLOTS), strict=True)),
        modules=frozenset(layers.copies.modules),
    )


RESERVED = ("Network", "INPUTS", "WEIGHTS", "read_weights", "check_inputs")
"""The names that the rest of the module defines."""


def check_names(text: str) -> None:
    """Raise SourceError if a module reads a name that it does not define: its source was found in part."""
    defined = {"__file__", "__name__", *vars(builtins)}
    code = compile(text, "model.py", "exec")
    defined |= {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_NAME"}
    for inner in _codes(code):
        for one in dis.get_instructions(inner):
            if one.opname == "LOAD_GLOBAL" and one.argval not in defined:
                raise SourceError(
                    f"{inner.co_qualname} reads {one.argval!r}, whose source was not found"
                )


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _users(plan: Plan) -> dict[int, Call]:
    """The first call of each layer, by the layer's identity."""
    found: dict[int, Call] = {}
    for step in plan.steps:
        found.setdefault(id(step.call.layer), step.call)
    return found


def _place(call: Call) -> str:
    where = f"{call.where}: " if call.where else ""
    return f"{where}node {call.node!r} ({call.title}): "


def _narrow(text: str) -> str:
    """The text with each statement in lines of at most 100 characters, where its names allow that."""
    lines: list[str] = []
    for line in text.splitlines():
        if len(line) <= 100 or line.lstrip().startswith("#"):
            lines.append(line)
        elif line.startswith(_DELETE):
            names = textwrap.wrap(line.removeprefix(_DELETE), 100 - len(_DELETE))
            lines += [_DELETE + some.rstrip(",") for some in names]
        else:
            inside = line.index("(", line.find(" = ") + 1) + 1
            first, *rest = line[inside:].split(", ")
            lines.append(line[:inside] + first)
            for one in rest:
                if len(lines[-1]) + len(one) + 3 <= 100:
                    lines[-1] += f", {one}"
                else:
                    lines[-1] += ","
                    lines.append(" " * inside + one)
    return "\n".join(lines) + "\n"


_DELETE = "    del "


def _sorted(imports: Collection[str]) -> str:
    """The imports in the order of ruff: Python's before torch's, modules before names."""

    def key(line: str) -> tuple[bool, bool, str]:
        module = line.split()[1]
        assert provided(module)
        return module.partition(".")[0] == "torch", line.startswith("from"), line

    from_modules: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in imports:
        head, word, name = line.partition(" import ")
        if word:
            from_modules.setdefault(head, []).append(name)
        else:
            lines.append(line)
    lines += [f"{head} import {', '.join(sorted(names))}" for head, names in from_modules.items()]
    ordered = sorted(lines, key=key)
    own = [line for line in ordered if key(line)[0]]
    return "\n".join([*(line for line in ordered if line not in own), "", *own]).strip()

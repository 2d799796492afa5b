"""Writes graphnet/nn/known.pyi: what type checkers are told of the classes of the built-in layers.

    python -m tests.support.nn_stub        # `make stub`

The classes of graphnet.nn are made from the registry when they are asked for, so a type checker does not see
them. A test holds that the file is what this program writes.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import graphnet
from graphnet import nn
from graphnet.sdk import default_registry

PATH = Path(graphnet.__file__).parent / "nn" / "known.pyi"
HEAD = '''"""Known: the classes of the built-in layers, losses and optimizers, for type checkers.

`make stub` writes this file from the fields of the registered classes.
"""

# fmt: off
# ruff: noqa: E501
from collections.abc import Iterable, Sequence
from typing import {typing}

import torch
from torch import Tensor

from graphnet.nn.optimizer import ModuleOptimizer
from graphnet.nn.registered import LayerModule
from graphnet.nn.tree import Pair
from graphnet.sdk import Spec

'''
_TYPES = {
    "params": "Iterable[Pair | Tensor]",
    "specs": "Sequence[Spec] | None",
    "device": "torch.device | str | None",
    "dtype": "torch.dtype | None",
    "generator": "torch.Generator | None",
}


def stub() -> str:
    """Return the text of the file."""
    registry = default_registry()
    names = {}
    for name in dir(nn):
        cls = getattr(nn, name)
        arguments = getattr(cls, "arguments", None)
        if arguments is not None and registry.entry_of(arguments.definition).plugin.builtin:  # type: ignore[union-attr]
            names[name] = cls
    text = ""
    for name, cls in names.items():
        if cls.__name__ == name:
            base = "ModuleOptimizer" if issubclass(cls, nn.ModuleOptimizer) else "LayerModule"
            text += f"class {name}({base}):\n{_init(cls)}"
    aliases = (f"{name} = {cls.__name__}\n" for name, cls in names.items() if cls.__name__ != name)
    text += "".join(aliases)
    needed = [name for name in ("Any", "Literal", "overload") if re.search(rf"\b{name}\b", text)]
    return HEAD.format(typing=", ".join(needed)) + text


def _init(cls: type) -> str:
    shown = list(inspect.signature(cls).parameters.values())
    defaults = dict.fromkeys(cls.arguments.definition.field_names())  # type: ignore[attr-defined]
    for name in (*cls.arguments.definition.required(), *cls.arguments.unlike):  # type: ignore[attr-defined]
        defaults.pop(name)
    forms = [shown]
    if any(one.name in defaults and one.default is one.empty for one in shown):
        by_name = [one.replace(kind=one.KEYWORD_ONLY) for one in shown]
        optional = [one.replace(default=None) if one.name in defaults else one for one in by_name]
        forms.append(sorted(optional, key=lambda one: one.default is not one.empty))
    lines = [f"    def __init__({_arguments(form)}) -> None: ...\n" for form in forms]
    return "".join(f"    @overload\n{line}" if len(lines) > 1 else line for line in lines)


def _arguments(form: list[inspect.Parameter]) -> str:
    texts = ["self"]
    for one in form:
        if one.kind is one.KEYWORD_ONLY and "*" not in texts:
            texts.append("*")
        stated = one.annotation if one.annotation is not one.empty else _TYPES[one.name]
        texts.append(f"{one.name}: {stated}" + ("" if one.default is one.empty else " = ..."))
    return ", ".join(texts)


if __name__ == "__main__":
    PATH.write_text(stub())

"""Literal: write a value as an expression of Python that makes an equal one."""

from __future__ import annotations

import ast
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch

from graphnet.errors import SourceError
from graphnet.sdk import Definition, Spec


class Literals(ABC):
    """Writes values; a subclass says by which name a file knows a class, and which fields it states."""

    @abstractmethod
    def named(self, cls: type) -> str:
        """The name of a class in the file. Raises SourceError if the file cannot have it."""

    def fields(self, definition: Definition) -> Mapping[str, Any]:
        """The fields with which the file makes a definition."""
        return definition.configuration()

    def literal(self, value: object) -> str:
        """An expression that makes an equal value. Raises SourceError if there is none."""
        match value:
            case Enum():
                return f"{self.named(type(value))}.{value.name}"
            case str() if value.isprintable() and not set(value) & {'"', "\\"}:
                return f'"{value}"'
            case None | bool() | int() | str() | bytes() | torch.dtype() | torch.memory_format():
                return repr(value)
            case float():
                return repr(value) if math.isfinite(value) else f'float("{value}")'
            case torch.device():
                return f'torch.device("{value}")'
            case Spec():
                name = self.named(Spec)
                rest = f"{value.dtype}, {self.literal(value.device)}"
                return f"{name}({value.shape!r}, {rest})"
            case tuple():
                items = "".join(f"{self.literal(item)}, " for item in value)
                return f"({items.rstrip(' ') if len(value) == 1 else items.removesuffix(', ')})"
            case list():
                return f"[{', '.join(map(self.literal, value))}]"
            case frozenset() | set():
                items = ", ".join(sorted(map(self.literal, value)))
                return (
                    f"{type(value).__name__}({{{items}}})" if value else f"{type(value).__name__}()"
                )
            case Mapping():
                pairs = (f"{self.literal(k)}: {self.literal(v)}" for k, v in value.items())
                return f"{{{', '.join(pairs)}}}"
            case Definition():
                written = ", ".join(
                    f"{name}={self.literal(field)}" for name, field in self.fields(value).items()
                )
                return f"{self.named(type(value))}({written})"
        raise SourceError(
            f"a plan holds {value!r}, a {type(value).__name__}, which cannot be written in a file. "
            f"Use numbers, text, tuples and mappings of them as fields."
        )


def instance_name(cls: type) -> str:
    """The name of a variable for an instance of a class.

    >>> instance_name(Literals)
    'literals'
    """
    return re.sub(r"(?<=[a-z0-9]{2})(?=[A-Z])", "_", cls.__name__).lower()


def wrapped(text: str, width: int = 100) -> str:
    """An assignment of a call, with an argument in each line if it is longer than the width.

    >>> print(wrapped("pool = Pool(size=(2, 2), stride=3)", 20))
    pool = Pool(
        size=(2, 2),
        stride=3,
    )
    """
    tree = ast.parse(text).body[0]
    if (
        len(text) <= width
        or not isinstance(tree, ast.Assign)
        or not isinstance(tree.value, ast.Call)
    ):
        return text
    call = tree.value
    head = text[: call.func.end_col_offset]
    parts = [ast.get_source_segment(text, part) for part in (*call.args, *call.keywords)]
    return "\n".join([f"{head}(", *(f"    {part}," for part in parts), ")"])

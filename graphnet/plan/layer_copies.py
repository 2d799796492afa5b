"""Layer copies: classes of layers with the methods, fields and constants that one of their methods needs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphnet.errors import SourceError
from graphnet.plan.codegen import unique
from graphnet.plan.copies import Copies
from graphnet.plan.edits import Edited, Statement, bound, docstring
from graphnet.plan.literal import Literals, instance_name
from graphnet.sdk import Definition, summary

FIELDS = "Fields"
"""The name of the base of all classes of layers in a file; it sets the fields."""
_METHODS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class LayerCopies(Literals):
    """The classes of the layers that a file has, and the layers themselves.

    Attributes:
        copies: what the classes need from their modules.
        members: class -> the names of its methods and constants in the file -> their text.
        attributes: class of a layer -> the names of the attributes that its code reads.
        instances: the expression of a layer -> its name in the file.
    """

    copies: Copies
    members: dict[type, dict[str, str]] = field(default_factory=dict)
    attributes: dict[type, set[str]] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    _names: dict[type, str] = field(default_factory=dict)

    def instance(self, definition: Definition, method: str) -> str:
        """The name in the file of a layer with this method; equal layers share one name."""
        cls = type(definition)
        self.reach(cls, method)
        written = self.literal(definition)
        if written not in self.instances:
            self.instances[written] = unique(instance_name(cls), self.copies.taken)
        return self.instances[written]

    def reach(self, cls: type, method: str) -> None:
        """Copy a method of a class, and all that it reads of the class and of its bases."""
        read = self.attributes.setdefault(cls, set())
        waiting = {method}
        while waiting:
            read |= waiting
            found: set[str] = set()
            for name in sorted(waiting):
                for base in cls.__mro__:
                    if name in vars(base) and issubclass(base, Definition):
                        found |= self._member(base, name)
                        if "super()" not in self.members[base].get(name, ""):
                            break
            waiting = found - read

    def _member(self, cls: type[Definition], name: str) -> set[str]:
        """Copy what a class states under a name, unless it is a field; return the attributes read."""
        members = self.members.setdefault(cls, {})
        if name in members:
            return self._reads[cls, name]
        value = vars(cls)[name]
        if name in cls.field_names():
            return set()
        statement = self._body(cls).get(name)
        if statement is None:  # set by the class's base, such as `axes`
            members[name] = f"{name} = {self.literal(value)}\n"
            self._reads[cls, name] = set()
            return set()
        if isinstance(statement, ast.AnnAssign) and statement.value is None:
            return set()
        self._reads[cls, name] = set()
        members[name] = ""  # its place, should it read itself
        edited = Edited(self.copies.parsed(cls.__module__), statement)
        read = self.copies.edit(edited)
        if (own := _read_of_self(statement)) is not None:
            read = own
        self._reads[cls, name] = read
        members[name] = edited.text()
        return read

    _reads: dict[tuple[type, str], set[str]] = field(default_factory=dict)

    def _body(self, cls: type) -> Mapping[str, Statement]:
        """The statements of a class by the names that they bind."""
        if not self.copies.travels(cls.__module__):
            raise SourceError(
                f"its class {cls.__name__} is of {cls.__module__}, whose code stays there"
            )
        node = self._node(cls)
        return {name: one for one in node.body for name in bound(one)}

    def _node(self, cls: type) -> ast.ClassDef:
        known = sys.modules.get(cls.__module__)
        if known is not None and vars(known).get(cls.__qualname__) is cls:
            node = self.copies.parsed(cls.__module__).statements.get(cls.__qualname__)
            if isinstance(node, ast.ClassDef):
                return node
        raise SourceError(
            f"the source of its class {cls.__module__}.{cls.__qualname__} is not found. Define the class at "
            f"the top of a module that can be imported"
        )

    def named(self, cls: type) -> str:
        """The name of a class in the file."""
        if not issubclass(cls, Definition):
            return self.copies.name(cls.__module__, cls.__qualname__)[0]
        if cls not in self._names:
            self._names[cls] = unique(cls.__name__, self.copies.taken)
        return self._names[cls]

    def fields(self, definition: Definition) -> Mapping[str, Any]:
        """The fields that the layer's code reads."""
        read = self.attributes.get(type(definition), set())
        return {name: v for name, v in definition.configuration().items() if name in read}

    def classes(self) -> list[str]:
        """The text of each class, its bases before it."""
        kept = [cls for cls in self.members if any(self.members[cls].values())]
        kept += [cls for cls in self.attributes if cls not in kept]
        ordered = sorted(kept, key=lambda cls: len(cls.__mro__))
        return [self._class(cls, kept) for cls in ordered]

    def _class(self, cls: type, kept: Sequence[type]) -> str:
        bases = ", ".join(map(self.named, _bases(cls, kept))) or FIELDS
        parts = [docstring(summary(cls))] if vars(cls).get("__doc__") else []
        members = [text for text in self.members.get(cls, {}).values() if text]
        members.sort(key=lambda text: text.startswith(("def ", "@")))  # constants first
        parts += [text.rstrip() for text in members]
        body = "\n\n".join(parts) or "pass"
        return f"class {self.named(cls)}({bases}):\n{_indented(body)}\n"


def _read_of_self(method: Statement) -> set[str] | None:
    """The attributes that a method reads of its object or class; None if it gives that to other code."""
    if not isinstance(method, ast.FunctionDef) or not method.args.args:
        return None
    itself = method.args.args[0].arg
    found: set[str] = set()
    known: set[int] = set()
    for node in ast.walk(method):
        match node:
            case ast.Attribute(value=ast.Name(id=name) as base, attr=attribute) if name == itself:
                found.add(attribute)
                known.add(id(base))
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=attribute):
                found.add(attribute)
    names = [n for n in ast.walk(method) if isinstance(n, ast.Name) and n.id == itself]
    return found if all(id(name) in known for name in names) else None


def _bases(cls: type, kept: Sequence[type]) -> list[type]:
    """The bases that a class has in the file: the nearest ones that are kept."""
    found: list[type] = []
    for base in cls.__bases__:
        found += [base] if base in kept else _bases(base, kept)
    distinct = list(dict.fromkeys(found))
    return [b for b in distinct if not any(o is not b and issubclass(o, b) for o in distinct)]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))

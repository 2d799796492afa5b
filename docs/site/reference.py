"""The reference, generated: public names of a module as Markdown, from its source and docstrings."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

SHOWN_DUNDERS = ("__call__", "__len__", "__getitem__")
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises)( \(.*\))?:$")
_ITEM = re.compile(r"^([\w*]+(?:, [\w*]+)*): (.*)", re.S)


@dataclass(frozen=True)
class Member:
    """An attribute or method that a class states itself: its name, how it is written, and its docstring."""

    name: str
    written: str
    doc: str


@functools.cache
def members(cls: type) -> Mapping[str, Member]:
    """What a class states itself, in the order of its source."""
    node = _class(cls)
    stated = described(inspect.getdoc(cls) or "")
    found: dict[str, Member] = {}
    for part, after in zip(node.body, [*node.body[1:], None], strict=True):
        match part:
            case ast.FunctionDef(name=name):
                kinds = [ast.unparse(one) for one in part.decorator_list]
                if f"{name}.setter" in kinds:
                    continue
                found[name] = Member(name, _call(name, part, kinds), ast.get_docstring(part) or "")
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                text = ast.unparse(part)
                if re.match(rf"{name}: ClassVar\[", text):
                    text = re.sub(r"ClassVar\[(.*)\]( =|$)", r"\1\2", text, count=1)
                said = stated.get(name) or _string(after)
                found[name] = Member(name, text, said[:1].upper() + said[1:])
    return {
        name: member
        for name, member in found.items()
        if not name.startswith("_") or (name in SHOWN_DUNDERS and member.doc)
    }


def described(doc: str) -> dict[str, str]:
    """Name -> description, of the items in the sections Args and Attributes of a docstring."""
    found: dict[str, str] = {}
    for title, body in sections(doc):
        if title.startswith(("Args", "Attributes")):
            for item in _items(body):
                if match := _ITEM.match(item):
                    found.update(dict.fromkeys(match[1].replace("*", "").split(", "), match[2]))
    return found


def sections(doc: str) -> Iterator[tuple[str, list[str]]]:
    """The title and the lines of each part of a docstring; the title is empty for text and examples."""
    title, body = "", list[str]()
    for before, line in pairwise(["", *doc.splitlines()]):
        if _SECTION.match(line):
            yield title, body
            title, body = line.rstrip(":"), []
        elif title and line and (not line.startswith(" ") or not before):  # text, or code
            yield title, body
            title, body = "", [line]
        else:
            body.append(line)
    yield title, body


def markdown(doc: str, *, skip: Sequence[str] = ()) -> str:
    """A docstring as Markdown, without the sections whose titles begin with one of `skip`."""
    parts: list[str] = []
    for title, body in sections(doc):
        if title and title.startswith(tuple(skip)):
            continue
        if not title:
            parts.append(_text(body))
            continue
        lines = [f"- {_definition(item)}" for item in _items(body)]
        parts.append(f"**{title}**\n\n" + "\n".join(lines))
    return "\n\n".join(part for part in parts if part.strip())


def class_page(cls: type, title: str, *, level: int = 2) -> str:
    """A class as Markdown: its text and example, then each attribute and method that it states."""
    own = members(cls)
    bases = [one for one in cls.__mro__[1:-1] if one.__module__.startswith("graphnet")]
    heads = "#" * level
    parts = [f"{heads} {title} {{ #{title} }}"]
    made = next((one for one in _class(cls).body if getattr(one, "name", "") == "__init__"), None)
    if isinstance(made, ast.FunctionDef):
        parts.append(f"`{_call(title, made, []).partition(' -> ')[0]}`")
        parts.append(markdown(inspect.getdoc(cls) or "", skip=("Attributes",)))
        if said := ast.get_docstring(made):
            parts.append(markdown(said))
    else:  # the arguments are fields, which are described below
        parts.append(markdown(inspect.getdoc(cls) or "", skip=("Attributes", "Args")))
    for member in own.values():
        # Markdown would read the underscores of __call__ as bold, and print the anchor as text.
        anchor = member.name.strip("_") if member.name.startswith("__") else member.name
        parts.append(f"{heads}## `{member.written}` {{ #{title}.{anchor} }}")
        parts.append(markdown(member.doc) or _inherited(member.name, bases))
    for base in bases:
        names = [name for name in members(base) if name not in own]
        if names:
            listed = ", ".join(f"`{name}`" for name in names)
            parts.append(f"From `{base.__name__}`: {listed}.")
    return "\n\n".join(parts)


def _class(cls: type) -> ast.ClassDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def _inherited(name: str, bases: Sequence[type]) -> str:
    """Which base says what a member is that a class states again without a docstring."""
    for base in bases:
        if name in (said := members(base)) and said[name].doc:
            return f"As `{base.__name__}.{name}`."
    return ""


def value_page(module: ModuleType, name: str, *, level: int = 2) -> str:
    """A public function, class or constant of a module as Markdown."""
    value = getattr(module, name)
    if isinstance(value, type) and not hasattr(value, "__origin__"):
        return class_page(value, name, level=level)
    head = f"{'#' * level} {name} {{ #{name} }}"
    if inspect.isfunction(inspect.unwrap(value) if callable(value) else value):
        function = inspect.unwrap(value)
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        assert isinstance(node, ast.FunctionDef)
        written = _call(name, node, [])
        return f"{head}\n\n`{written}`\n\n{markdown(inspect.getdoc(function) or '')}"
    if isinstance(value, ModuleType):
        return f"{head}\n\n{markdown(inspect.getdoc(value) or '')}"
    written, doc = constant(module, name)
    return f"{head}\n\n```python\n{written}\n```\n\n{markdown(doc)}"


def constant(module: ModuleType, name: str) -> tuple[str, str]:
    """How a constant is written where it is assigned, and the text beside it."""
    for home, original in _homes(module, name):
        body = _tree(home).body
        for part, after in zip(body, [*body[1:], None], strict=True):
            match part:
                case (
                    ast.AnnAssign(target=ast.Name(id=found))
                    | ast.Assign(targets=[ast.Name(id=found)])
                ) if found == original:
                    source = Path(str(importlib.import_module(home).__file__)).read_text()
                    lines = source.splitlines()[part.lineno - 1 : part.end_lineno]
                    first, _, comment = lines[0].partition("  # ")
                    above = source.splitlines()[part.lineno - 2]
                    beside = comment or (above[2:] if above.startswith("# ") else "")
                    text = ast.unparse(part)
                    short = text if len(text) <= 88 else "\n".join([first, *lines[1:]])
                    return short, _string(after) or beside.strip()
    return name, ""


def _homes(module: ModuleType, name: str) -> Iterator[tuple[str, str]]:
    """The modules in which a name may be assigned: this one, and those that it is imported from."""
    yield module.__name__, name
    for part in ast.walk(_tree(module.__name__)):
        if isinstance(part, ast.ImportFrom) and part.module:
            for alias in part.names:
                if (alias.asname or alias.name) == name:
                    yield from _homes(importlib.import_module(part.module), alias.name)


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(Path(str(importlib.import_module(module).__file__)).read_text())


def _call(name: str, node: ast.FunctionDef, kinds: Sequence[str]) -> str:
    """A function as it is called: its name and arguments, without self."""
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if any(kind.endswith("property") for kind in kinds):
        return f"{name}{returned.replace(' ->', ':')}"
    arguments = ast.unparse(node.args)
    if "self" in arguments.split(",")[0] or arguments.split(",")[0].strip() == "cls":
        arguments = arguments.partition(",")[2].strip()
    kind = "classmethod " if "classmethod" in kinds else ""
    return f"{kind}{name}({arguments}){returned}"


def _string(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str() as text)):
            return inspect.cleandoc(text)
    return ""


def _items(body: Sequence[str]) -> list[str]:
    """The items of a section: each begins at the least indent, and its further lines at a larger one."""
    text = textwrap.dedent("\n".join(body)).strip("\n")
    found: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith(" ") and (_ITEM.match(line) or not found):
            found.append(line)
        elif found:
            found[-1] += f" {line.strip()}"
    return found


def _definition(item: str) -> str:
    match = _ITEM.match(item)
    return f"`{match[1]}`: {escaped(match[2])}" if match else escaped(item)


def _text(lines: Sequence[str]) -> str:
    """Paragraphs, and examples in fences of their own."""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        if re.match(r" *>>>", block):
            if parts and parts[-1].startswith("```pycon"):
                parts[-1] = parts[-1].removesuffix("\n```") + f"\n\n{textwrap.dedent(block)}\n```"
            else:
                parts.append(f"```pycon\n{textwrap.dedent(block)}\n```")
        elif block.lstrip().startswith("- "):
            parts.append(block)
        else:  # an equation or code is indented, also inside a paragraph
            for apart, run in groupby(block.splitlines(), lambda line: line.startswith("    ")):
                text = "\n".join(run)
                parts.append(f"```text\n{textwrap.dedent(text)}\n```" if apart else escaped(text))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Text in which Markdown sees nothing but code between backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_\[\]])", r"\\\1", part.replace("<", "&lt;"))
        for part in parts
    )


def public_classes(module: ModuleType) -> dict[str, type[Any]]:
    """The classes of graphnet in a module's __all__, by name."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value) and value.__module__.startswith("graphnet")
    }

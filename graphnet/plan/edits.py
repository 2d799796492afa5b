"""Edits: change a piece of source at places of its syntax tree; everything else stays as it is."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType

from graphnet.errors import SourceError

Statement = ast.stmt
Place = tuple[int, int]
"""A line, and a column in bytes of UTF-8, as Python's syntax trees count them."""


@dataclass(frozen=True)
class Parsed:
    """A module's source and its statements.

    Attributes:
        module: the module.
        lines: the lines of its file, in UTF-8.
        tree: its syntax tree.
    """

    module: ModuleType
    lines: tuple[bytes, ...]
    tree: ast.Module

    @classmethod
    def of(cls, module: ModuleType) -> Parsed:
        """Parse a module. Raises SourceError if its source cannot be read."""
        try:
            text = inspect.getsource(module)
        except (OSError, TypeError) as error:
            raise SourceError(
                f"the source of the module {module.__name__} cannot be read"
            ) from error
        lines = tuple(line.encode() for line in text.splitlines(keepends=True))
        return cls(module, lines, ast.parse(text))

    @cached_property
    def statements(self) -> dict[str, Statement]:
        """Name -> the statement at the top of the module that binds it, the last of several."""
        found: dict[str, Statement] = {}
        waiting = list(reversed(self.tree.body))
        while waiting:
            statement = waiting.pop()
            if isinstance(statement, (ast.If, ast.Try)):
                waiting += reversed(statement.body)
            found.update(dict.fromkeys(bound(statement), statement))
        return found

    def segment(self, start: Place, end: Place) -> str:
        """The text between two places."""
        (first, left), (last, right) = start, end
        if first == last:
            return self.lines[first - 1][left:right].decode()
        middle = self.lines[first : last - 1]
        parts = [self.lines[first - 1][left:], *middle, self.lines[last - 1][:right]]
        return b"".join(parts).decode()


def bound(statement: Statement) -> list[str]:
    """The names that a statement binds."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
        case ast.Assign(targets=targets):
            named = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            return [name.id for name in named]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


@dataclass
class Edited:
    """A statement with edits.

    Attributes:
        parsed: the module that contains it.
        node: the statement.
        edits: what to put between which places.
    """

    parsed: Parsed
    node: Statement
    edits: list[tuple[Place, Place, str]] = field(default_factory=list)

    def replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        """Put a text in the place of a part of the statement."""
        self.edits.append((*span(node), text))

    def rename(self, node: ast.expr, name: str) -> None:
        """Put another name in the place of a name or of an attribute of a module."""
        start, end = span(node)
        if self.parsed.segment(start, end) != ast.unparse(node):
            raise SourceError(
                f"{self.parsed.module.__name__}, line {start[0]}: {ast.unparse(node)!r} has to be renamed in "
                f"the file, which cannot be done at this place. Use a variable of that value"
            )
        self.replace(node, name)

    def unannotate(self, node: ast.expr, *, returned: bool) -> None:
        """Remove an annotation with its ":" or "->" in front."""
        start, end = span(node)
        mark = b"->" if returned else b":"
        line = self.parsed.lines[start[0] - 1]
        at = line.rfind(mark, 0, start[1])
        if at >= 0:
            left = len(line[:at].rstrip()) if returned else at
            self.edits.append(((start[0], left), end, ""))

    def text(self) -> str:
        """The statement's source with its decorators, the edits made, starting in the first column."""
        decorators = getattr(self.node, "decorator_list", [])
        first = min([self.node.lineno, *(one.lineno for one in decorators)])
        at: Place = (first, 0)
        parts = []
        for start, end, text in sorted(self.edits):
            parts += [self.parsed.segment(at, start), text]
            at = end
        last, right = span(self.node)[1]
        behind = self.parsed.lines[last - 1][right:].decode()
        comment = behind.rstrip() if behind.lstrip().startswith("#") else ""
        parts += [self.parsed.segment(at, (last, right)), comment]
        return textwrap.dedent("".join(parts)).rstrip() + "\n"


def span(node: ast.expr | ast.stmt) -> tuple[Place, Place]:
    """Where a part of the source starts and ends."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def shorten_docstrings(edited: Edited) -> None:
    """Keep the first line of each docstring: the other lines describe things that are not in the file."""
    for node in ast.walk(edited.node):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            text = ast.get_docstring(node)
            if text is not None and "\n" in text:
                expression = node.body[0]
                assert isinstance(expression, ast.Expr)
                edited.replace(expression.value, docstring(text))


def docstring(text: str) -> str:
    """The first line of a docstring, as one of its own."""
    first = text.strip().partition("\n")[0]
    return f'"""{first}"""' if "\\" not in first and not first.endswith('"') else repr(first)

"""Copies: copy the source of layers, and of everything that they use, into a file that needs torch alone.

Starting from a layer's method, each name that its code reads is looked up where its module binds it.
Statements of the layers' own modules are copied. Imports from torch or Python's own library are repeated.
Anything else is an error that names it.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from graphnet.errors import SourceError
from graphnet.plan.codegen import unique
from graphnet.plan.edits import Edited, Parsed, Statement, bound, shorten_docstrings

_OURS = ("graphnet.builtin", "graphnet.sdk", "graphnet.errors")  # of graphnet's rooms, these travel
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def provided(module: str) -> bool:
    """Whether every machine with torch has a module: torch's own, and those of Python's library."""
    top = module.partition(".")[0]
    return top == "torch" or top in sys.stdlib_module_names


@dataclass
class Copies:
    """The statements that are copied into a file, and its imports.

    Attributes:
        packages: the top packages of the modules whose source may be copied.
        taken: the names in the file.
        imports: the name in the file -> the statement that imports it.
        texts: the statements, each after those that it needs when it runs.
        modules: the modules that statements were copied from.
    """

    packages: Collection[str]
    taken: set[str]
    imports: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)
    _origins: dict[tuple[str, str], str] = field(default_factory=dict)
    _parsed: dict[str, Parsed] = field(default_factory=dict)
    _named: dict[tuple[str, str], str] = field(default_factory=dict)
    _read: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def travels(self, module: str) -> bool:
        """Whether a module's source may be copied."""
        top = module.partition(".")[0]
        if top == "graphnet":
            return module.startswith(_OURS)
        return top in self.packages

    def parsed(self, module: str) -> Parsed:
        """A module's source, which is read once."""
        if module not in self._parsed:
            self._parsed[module] = Parsed.of(sys.modules[module])
            self.modules.add(module)
        return self._parsed[module]

    def name(self, module: str, name: str) -> tuple[str, set[str]]:
        """The name in the file of what a module calls `name`, and the attributes that its code reads.

        What is not in the file yet is copied or imported.

        Raises:
            SourceError: it comes from a module whose source may not be copied.
        """
        key = (module, name)
        if key in self._named:
            return self._named[key], self._read.get(key, set())
        statement = self.parsed(module).statements.get(name)
        match statement:
            case None:
                if name in vars(builtins) or name == "__name__":
                    return name, set()
                raise SourceError(f"{module} does not define {name!r} by a statement at its top")
            case ast.Import(names=names):
                for alias in names:
                    if bound(ast.Import([alias])) == [name]:
                        return self._imported(key, alias.name, "", alias.asname), set()
            case ast.ImportFrom(names=names):
                for alias in names:
                    if (alias.asname or alias.name) == name:
                        home = self._home(module, statement)
                        if provided(home):
                            return self._imported(key, home, alias.name, alias.asname), set()
                        return self._from(home, alias.name)
        assert statement is not None
        return self._copied(key, statement)

    def provide(self, module: str, name: str) -> str:
        """Import from torch or Python's library, without `name` the module itself; the name in the file."""
        return self._imported(("", name or module), module, name, None)

    def _home(self, module: str, statement: ast.ImportFrom) -> str:
        """The module from which a statement imports."""
        if not statement.level:
            return statement.module or ""
        package = str(vars(sys.modules[module])["__package__"])
        above = package.split(".")[: len(package.split(".")) - statement.level + 1]
        return ".".join([*above, statement.module or ""]).rstrip(".")

    def _from(self, home: str, name: str) -> tuple[str, set[str]]:
        """As `name`, for what another module than torch's or Python's has."""
        value = vars(sys.modules[home]).get(name) if home in sys.modules else None
        if isinstance(value, (type, *_CODE)) and value.__module__ in sys.modules:
            home, name = value.__module__, value.__qualname__
        if provided(home):
            return self._imported((home, name), home, name, None), set()
        if not self.travels(home):
            raise SourceError(f"its code imports {name!r} from {home}, which {_why(home)}")
        if "." in name:
            raise SourceError(f"{home}.{name} stands inside a class or function, not at the top")
        return self.name(home, name)

    def _imported(self, key: tuple[str, str], module: str, name: str, alias: str | None) -> str:
        """The name of what is imported from torch or Python's library."""
        if not provided(module):
            raise SourceError(f"its code imports {module}, which {_why(module)}")
        if (module, name) not in self._origins:
            wanted = alias or name or module.partition(".")[0]
            own = unique(wanted, self.taken)
            given = name or module.partition(".")[0]
            if alias and not name:
                given = module
            renamed = f" as {own}" if own != given else ""
            text = f"from {module} import {name}" if name else f"import {module}"
            self.imports[own] = text + renamed
            self._origins[module, name] = own
        own = self._named[key] = self._origins[module, name]
        return own

    def _copied(self, key: tuple[str, str], statement: Statement) -> tuple[str, set[str]]:
        """Copy a statement at the top of a module, and all that it needs."""
        module, name = key
        own = self._named[key] = unique(name, self.taken)
        read = self._read[key] = set()
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and len(bound(statement)) > 1:
            raise SourceError(f"{module}: {name!r} is assigned together with other names")
        edited = Edited(self.parsed(module), statement)
        if own != name:
            self._rename_itself(edited, name, own)
        read |= self.edit(edited)
        self.texts.append(edited.text())
        return own, read

    def _rename_itself(self, edited: Edited, name: str, own: str) -> None:
        node = edited.node
        if isinstance(node, ast.Assign):
            edited.rename(node.targets[0], own)
        elif isinstance(node, ast.AnnAssign):
            edited.rename(node.target, own)
        else:
            word = "def " if isinstance(node, ast.FunctionDef) else "class "
            left = node.col_offset + len(word)
            edited.edits.append(
                ((node.lineno, left), (node.lineno, left + len(name.encode())), own)
            )

    def edit(self, edited: Edited) -> set[str]:
        """Give what a statement reads the names that it has in the file; return the attributes read."""
        module = edited.parsed.module.__name__
        shorten_docstrings(edited)
        self._edit_annotations(edited)
        attributes: set[str] = set()
        for node in _reads(edited.node):
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
                _check_operator(vars(edited.parsed.module), node)
                continue
            chain = self._through_modules(module, node, edited.node)
            if chain is not None:
                attribute, home, name = chain
                own, read = self._from(home, name)
                edited.rename(attribute, own)
            else:
                assert isinstance(node, ast.Name)
                own, read = self.name(module, node.id)
                if own != node.id:
                    edited.rename(node, own)
            attributes |= read
        return attributes

    def _through_modules(
        self, module: str, node: ast.expr, top: Statement
    ) -> tuple[ast.expr, str, str] | None:
        """For `random.uniform`, `random` a module of layers: that attribute, its module and its name."""
        assert isinstance(node, ast.Name)
        value: Any = vars(sys.modules[module]).get(node.id)
        if not isinstance(value, ModuleType) or provided(value.__name__):
            return None
        parents = {id(a.value): a for a in ast.walk(top) if isinstance(a, ast.Attribute)}
        at: ast.expr = node
        while isinstance(value, ModuleType):
            parent = parents.get(id(at))
            if parent is None or not self._is_near(value.__name__):
                raise SourceError(
                    f"its code imports {value.__name__}, which {_why(value.__name__)}"
                )
            home, at, value = value.__name__, parent, getattr(value, parent.attr)
        assert isinstance(at, ast.Attribute)
        return at, home, at.attr

    def _is_near(self, module: str) -> bool:
        """Whether attributes of a module may lead to one that may be copied: `gn.sdk.random` does."""
        return module.partition(".")[0] in {"graphnet", *self.packages}

    def _edit_annotations(self, edited: Edited) -> None:
        """Keep the annotations whose names torch and Python have; remove the others."""
        for node, returned in _annotations(edited.node):
            names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
            module = edited.parsed.module.__name__
            if all(self._is_provided(module, name.id) for name in names):
                for name in names:
                    own, _ = self.name(module, name.id)
                    if own != name.id:
                        edited.rename(name, own)
            elif isinstance(edited.node, ast.ClassDef) and node in _fields(edited.node):
                edited.replace(node, "object")  # a field of a dataclass needs an annotation
            else:
                edited.unannotate(node, returned=returned)

    def _is_provided(self, module: str, name: str) -> bool:
        """Whether a name in an annotation is one of Python's or torch's."""
        statement = self.parsed(module).statements.get(name)
        if statement is None:
            return name in vars(builtins)
        if isinstance(statement, ast.ImportFrom):
            return provided(self._home(module, statement))
        return isinstance(statement, ast.Import) and all(provided(a.name) for a in statement.names)


_CODE = (type(provided),)


def _why(module: str) -> str:
    if module.partition(".")[0] == "graphnet":
        return "is of graphnet itself and stays there"
    return "is neither of torch nor of Python's own library"


def _check_operator(names: Mapping[str, Any], node: ast.Attribute) -> None:
    """Raise SourceError for an operator such as torch.ops.acme.scale, which torch alone does not have."""
    chain: list[str] = []
    part: ast.expr = node
    while isinstance(part, ast.Attribute):
        chain.insert(0, part.attr)
        part = part.value
    if not isinstance(part, ast.Name) or names.get(part.id) is not torch:
        return
    if chain[0] == "ops" and len(chain) > 1 and chain[1] not in _OPERATORS:
        raise SourceError(
            f"its code calls an operator of torch.ops.{chain[1]}, which torch does not have by itself"
        )


_OPERATORS = ("aten", "prim", "prims")  # the namespaces of torch's own operators


def _annotations(top: Statement) -> Iterator[tuple[ast.expr, bool]]:
    """The annotations in a statement, and whether each is that of a function's result."""
    for part in ast.walk(top):
        match part:
            case (
                ast.FunctionDef(returns=ast.expr() as node)
                | ast.AsyncFunctionDef(returns=ast.expr() as node)
            ):
                yield node, True
            case ast.arg(annotation=ast.expr() as node) | ast.AnnAssign(annotation=node):
                yield node, False


def _fields(node: ast.ClassDef) -> list[ast.expr]:
    return [part.annotation for part in node.body if isinstance(part, ast.AnnAssign)]


def _reads(node: Statement) -> Iterator[ast.Name | ast.Attribute]:
    """The names that a statement reads from its module, and all attributes that it reads."""
    annotations = {id(part) for top, _ in _annotations(node) for part in ast.walk(top)}

    def walk(part: ast.AST, local: frozenset[str]) -> Iterator[ast.Name | ast.Attribute]:
        if id(part) in annotations:
            return
        if isinstance(part, ast.Attribute):
            yield part
        if isinstance(part, ast.Name):
            if isinstance(part.ctx, ast.Load) and part.id not in local:
                yield part
            return
        body = local
        if isinstance(part, (*_FUNCTIONS, *_COMPREHENSIONS)):
            body = local | _locals(part)
        in_class = local | _locals(part) if isinstance(part, ast.ClassDef) else None
        for child in ast.iter_child_nodes(part):
            if in_class is None or isinstance(child, _FUNCTIONS):
                yield from walk(child, body)  # methods do not see the names of their class
            else:
                yield from walk(child, in_class)

    yield from walk(node, frozenset())


def _locals(node: ast.AST) -> frozenset[str]:
    """The names that a function, a comprehension or the body of a class binds, without those inside of it."""
    found: set[str] = set()
    if isinstance(node, _FUNCTIONS):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
        found |= {one.arg for one in every}
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        part = waiting.pop()
        match part:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                found.add(name)
                continue
            case (
                ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp()
            ):
                walrus = [n.target for n in ast.walk(part) if isinstance(n, ast.NamedExpr)]
                found |= {target.id for target in walrus}
                continue
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                found.add(name)
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                found.add(name)
            case ast.alias():
                found.add((part.asname or part.name).partition(".")[0])
        waiting += ast.iter_child_nodes(part)
    return frozenset(found)

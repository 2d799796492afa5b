"""Mutations: change Python source in one place, in each of the ways that an author may get a layer wrong.

A mutant is the whole source of a module with one change. What only decides which inputs are refused (an `if`
that does nothing but raise, and what is computed for such ones alone) is left alone, since no kit can know
what an author wants to refuse; the same holds for `__post_init__`, for `match`, which decides where a kernel
is used, and for messages and docstrings.
"""

from __future__ import annotations

import ast
import copy
import difflib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

Change = tuple[str, ast.AST]
"""The kind of a mutation, and the node that takes the place of another."""

_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_TWINS = {
    "sum": "mean",
    "mean": "sum",
    "amax": "amin",
    "amin": "amax",
    "max": "min",
    "min": "max",
    "clamp_min": "clamp_max",
    "clamp_max": "clamp_min",
    "add": "sub",
    "add_": "sub_",
    "sub_": "add_",
    "mul_": "div_",
    "sqrt": "square",
    "rsqrt": "sqrt",
    "square": "abs",
    "exp": "expm1",
    "log": "log1p",
    "new_zeros": "new_ones",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
    "floor": "ceil",
    "cat": "stack",
    "stack": "cat",
    "unbind": "split",
}
_REDUCTIONS = ("sum", "mean", "amax", "amin", "sum_to_size")
_STRIDED = {"reshape": "view", "flatten": "ravel"}
_CASTS = ("to", "float", "double", "type_as")
_ALIASES = ("clone", "contiguous")
_MODULES = ("torch", "self", "cls", "math", "F", "random", "torch.linalg")
_LEFT = ("__post_init__", "samples", "match")
_PROMISES = ("pointwise", "kept")  # to promise less is not wrong
_GUARDS = ("strict",)  # of zip: it computes nothing
_ROOTS = {"Layer", "Loss", "Kernel", "Spatial"}  # their `overwrites` are empty
_ANY = "*"  # stands for all arguments: a base class of another module says which
_MASKS = ("where", "masked_fill", "masked_fill_")


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Args:
        module: the module's name.
        owner: the class or function at the top of the module in which the change is.
        function: the method or function in which it is; the class itself for a declaration.
        kind: what was changed, such as "sign".
        line: the line of the original source.
        diff: the changed lines, before and after.
        source: the whole source with the change.
    """

    module: str
    owner: str
    function: str
    kind: str
    line: int
    diff: tuple[str, ...]
    source: str

    @property
    def name(self) -> str:
        """The name by which a list sets a mutant aside: it changes only if its line does."""
        place = self.owner if self.function == self.owner else f"{self.owner}.{self.function}"
        return f"{self.module.removeprefix('graphnet.builtin.')}:{place}: {' -> '.join(self.diff)}"


def mutants_of(module: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module's source, in the order of its lines."""
    tree = ast.parse(source)
    parts = [ast.unparse(part) for part in tree.body]
    deciding = _only_of_match(tree)
    overwritten: dict[str, set[str]] = {}
    for place, owner in enumerate(tree.body):
        if getattr(owner, "name", "") in deciding:
            continue
        written = _overwritten(owner)
        if isinstance(owner, ast.ClassDef):
            bases = [ast.unparse(base) for base in owner.bases]
            written |= set().union(*(overwritten.get(base, {_ANY}) for base in bases))
            written -= {_ANY} if set(bases) <= _ROOTS else set()
            overwritten[owner.name] = written
        seen = {parts[place]}
        for function, node in _bodies(owner):
            for kind, line in _mutate(node, written):
                text = ast.unparse(owner)  # the rest of the module stays
                if text not in seen and _compiles(text):
                    seen.add(text)
                    name = getattr(owner, "name", "")
                    diff = _difference(parts[place], text)
                    changed = "\n".join([*parts[:place], text, *parts[place + 1 :]])
                    yield Mutant(module, name, function, kind, line, diff, changed)


def _only_of_match(tree: ast.Module) -> set[str]:
    """The functions of a module that only `match` of its kernels calls."""
    users: dict[str, set[str]] = {}
    for top in tree.body:
        for name, body in (
            [(getattr(top, "name", ""), top)]
            if not isinstance(top, ast.ClassDef)
            else [(getattr(part, "name", top.name), part) for part in top.body]
        ):
            for node in ast.walk(body):
                if isinstance(node, ast.Name):
                    users.setdefault(node.id, set()).add(name)
    functions = {top.name for top in tree.body if isinstance(top, ast.FunctionDef)}
    return {one for one in functions if users.get(one) and users[one] <= {"match"}}


def _overwritten(owner: ast.stmt) -> set[str]:
    """The names in a class's `overwrites`: `forward_` and `backward_` may write to them."""
    found: set[str] = set()
    for part in ast.walk(owner):
        if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) == "overwrites":
            found |= {n.value for n in ast.walk(part) if isinstance(n, ast.Constant)}  # type: ignore[misc]
    return found


def _compiles(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _difference(before: str, after: str) -> tuple[str, ...]:
    """Return the changed lines, those before and those after as one text each."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return tuple(
        " / ".join(line[2:].strip() for line in lines if line.startswith(sign)) or "(nothing)"
        for sign in "-+"
    )


def _bodies(owner: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Yield the functions of a statement at the top of a module, and its declarations, with their names."""
    if isinstance(owner, ast.FunctionDef):
        yield owner.name, owner
    elif isinstance(owner, ast.ClassDef):
        for part in owner.body:
            if isinstance(part, ast.FunctionDef) and part.name not in _LEFT:
                yield part.name, part
            elif isinstance(part, ast.AnnAssign) and _declares(part):
                yield owner.name, part


def _declares(part: ast.AnnAssign) -> bool:
    """Whether it is a declaration of the class; another default of a field would not be wrong."""
    names = ast.unparse(part.target)
    return "ClassVar" in ast.unparse(part.annotation) and names not in _PROMISES


def _mutate(root: ast.AST, written: set[str]) -> Iterator[tuple[str, int]]:
    """Change the tree in one place after the other; it is changed while a mutation is yielded.

    `written` names the arguments that methods in place may write to.
    """
    guards = _guards(root) if isinstance(root, ast.FunctionDef) else set()
    for parent, field, index, node in list(_places(root, guards)):
        for kind, new in list(_changes(node, parent)):
            _put(parent, field, index, new)
            yield kind, getattr(node, "lineno", getattr(parent, "lineno", 0))
            _put(parent, field, index, node)
    if isinstance(root, ast.FunctionDef):
        yield from _mutate_statements(root, written, guards)


def _guards(function: ast.FunctionDef) -> set[ast.AST]:
    """The statements that only decide what is refused: guards, and what is computed for guards alone."""
    found: set[ast.AST] = {node for node in ast.walk(function) if _silent(node)}
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    grown = True
    while grown:
        inside = {node for guard in found for node in ast.walk(guard)}
        read = {
            n.id
            for n in ast.walk(function)
            if isinstance(n, ast.Name) and n not in inside and isinstance(n.ctx, ast.Load)
        }
        refusing = {n.id for n in inside if isinstance(n, ast.Name)} - read
        more = {one for one in statements if _only_for(one, refusing, found)} - found
        grown = bool(more)
        found |= more
    return found


def _only_for(statement: ast.stmt, refusing: set[str], guards: set[ast.AST]) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in refusing
        case ast.For(body=body):
            return all(one in guards for one in body)
    return False


def _places(
    root: ast.AST, guards: set[ast.AST]
) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield each node below a root that computes something, with its place in its parent."""
    for field, value in ast.iter_fields(root):
        if field in ("annotation", "returns", "decorator_list", "args") and not isinstance(
            root, ast.Call
        ):
            continue
        for index, node in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(node, ast.AST) or _silent(node) or node in guards:
                continue
            yield root, field, index, node
            yield from _places(node, guards)


def _silent(node: ast.AST) -> bool:
    """Whether a statement computes nothing: a docstring, a message, or a guard that only raises."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(body=body, orelse=[]):
            return isinstance(body[-1], ast.Raise)
    return False


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[Change]:
    """Yield what may stand in the place of a node."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in _OPERATORS:
                yield "operator", ast.BinOp(left, _OPERATORS[type(op)](), right)
            yield "dropped term", left
            yield "dropped term", right
            if isinstance(op, (ast.Sub, ast.Div, ast.MatMult, ast.Pow, ast.FloorDiv)):
                yield "swapped arguments", ast.BinOp(right, op, left)
        case ast.UnaryOp(operand=operand):
            yield "sign" if isinstance(node.op, ast.USub) else "mask", operand
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            kind = "wanted" if ast.unparse(right) == "wanted" else "comparison"
            for other in _COMPARISONS.get(type(op), ()):
                yield kind, ast.Compare(left, [other()], [right])
            if isinstance(op, ast.In):
                yield kind, ast.UnaryOp(ast.Not(), node)
        case ast.BoolOp(op=op, values=values):
            yield "mask", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for i in range(len(values)):
                yield (
                    "mask",
                    ast.BoolOp(op, values[:i] + values[i + 1 :])
                    if len(values) > 2
                    else values[1 - i],
                )
        case ast.IfExp(body=body, orelse=orelse):
            yield "dropped term", body
            yield "dropped term", orelse
        case ast.Constant(value=value) if not isinstance(parent, (ast.keyword, ast.Expr)):
            yield from _constants(value)
        case ast.keyword(arg=name, value=ast.Constant(value=value)) if name not in _GUARDS:
            kind = "broadcast sum" if name == "keepdim" else "constant"
            for _, constant in _constants(value):
                assert isinstance(constant, ast.Constant)
                yield kind, ast.keyword(name, constant)
        case ast.Slice():
            yield from _slices(node)
        case ast.Subscript(value=value, slice=ast.Slice() | ast.Tuple()):
            yield "slice", value
        case ast.Tuple(elts=elts, ctx=ast.Load()) if len(elts) > 1:
            yield from _tuples(node, parent)
        case ast.Return(value=value) if value is not None:
            for kind, changed in _results(value):
                yield kind, ast.Return(changed)
        case ast.Call():
            yield from _calls(node)


def _constants(value: object) -> Iterator[Change]:
    match value:
        case bool():
            yield "constant", ast.Constant(not value)
        case int():
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case float():
            yield "constant", ast.Constant(value + 0.5)
            yield "sign" if value else "constant", ast.Constant(-value if value else 1.0)


def _slices(node: ast.Slice) -> Iterator[Change]:
    one = ast.Constant(1)
    for name in ("lower", "upper"):
        bound = getattr(node, name)
        if bound is not None:
            moved = copy.copy(node)
            setattr(moved, name, ast.BinOp(bound, ast.Add(), one))
            yield "slice", moved
            free = copy.copy(node)
            setattr(free, name, None)
            yield "slice", free
    if node.step is not None:
        longer = copy.copy(node)
        longer.step = ast.BinOp(node.step, ast.Add(), one)
        yield "stride", longer


def _tuples(node: ast.Tuple, parent: ast.AST) -> Iterator[Change]:
    reduction = isinstance(parent, ast.Call) and _called(parent) in _REDUCTIONS
    if isinstance(parent, ast.Return) or not reduction:
        elements = list(node.elts)
        for i in range(len(elements) - 1):
            swapped = [*elements]
            swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
            yield "swapped arguments", ast.Tuple(swapped, ast.Load())
    for i in range(len(node.elts)):
        rest = [one for j, one in enumerate(node.elts) if j != i]
        kind = "broadcast sum" if reduction else "declaration"
        if reduction or isinstance(parent, ast.AnnAssign):
            yield kind, ast.Tuple(rest, ast.Load())


def _results(value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield changes of what a function returns: a sign, a dtype, or None for a part of a tuple."""
    if isinstance(value, ast.Tuple):
        for i, one in enumerate(value.elts):
            for kind, changed in _results(one):
                elements = [*value.elts]
                elements[i] = changed
                yield kind, ast.Tuple(elements, ast.Load())
    elif not isinstance(value, (ast.Constant, ast.List, ast.Dict, ast.ListComp)):
        yield "sign", ast.UnaryOp(ast.USub(), value)
        yield "dtype", ast.Call(ast.Attribute(value, "float", ast.Load()), [], [])


_SYMMETRIC = ("max", "min", "maximum", "minimum")  # their arguments may come in any order


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _calls(node: ast.Call) -> Iterator[Change]:
    name, arguments = _called(node), node.args
    if isinstance(node.func, ast.Attribute):
        subject = node.func.value
        if name in _TWINS:
            yield "operator", _with(node, name=_TWINS[name])
        if name in _STRIDED and isinstance(subject, ast.Name):  # what was just made has all strides
            yield "stride", _with(node, name=_STRIDED[name])
        if name in _CASTS:
            yield "dtype", subject
        elif name in _ALIASES:
            yield "aliasing", subject
        elif name in _REDUCTIONS:
            yield "broadcast sum", subject
            if arguments:
                yield "broadcast sum", _with(node, args=[])
        elif name in _MASKS:
            yield "mask", subject
            if name == "where":
                yield (
                    "mask",
                    _with(node, args=[ast.UnaryOp(ast.Invert(), arguments[0]), *arguments[1:]]),
                )
        elif not name.endswith("_") and ast.unparse(subject) not in _MODULES:
            yield "dropped term", subject
    elif isinstance(node.func, ast.Name) and len(arguments) == 1:
        yield "dropped term", arguments[0]
    for i in range(0 if name in _SYMMETRIC else len(arguments) - 1):
        if not any(isinstance(one, ast.Starred) for one in arguments[i : i + 2]):
            swapped = [*arguments]
            swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
            yield "swapped arguments", _with(node, args=swapped)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg in _GUARDS:
            continue
        kind = {"keepdim": "broadcast sum", "dtype": "dtype", "device": "device"}.get(
            str(keyword.arg), "swapped arguments"
        )
        yield kind, _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])


def _with(
    node: ast.Call,
    *,
    name: str | None = None,
    args: list[ast.expr] | None = None,
    keywords: list[ast.keyword] | None = None,
) -> ast.Call:
    function = node.func
    if name is not None:
        assert isinstance(function, ast.Attribute)
        function = ast.Attribute(function.value, name, ast.Load())
    return ast.Call(
        function,
        node.args if args is None else args,
        node.keywords if keywords is None else keywords,
    )


_METHODS = (
    "forward",
    "backward",
    "inference",
    "forward_",
    "backward_",
    "absorb",
    "affine_map",
    "run",
)


def _mutate_statements(
    function: ast.FunctionDef, written: set[str], guards: set[ast.AST]
) -> Iterator[tuple[str, int]]:
    """Drop statements and branches, and write to arguments."""
    for body in _blocks(function):
        for i, statement in enumerate(list(body)):
            if statement in guards or isinstance(statement, (ast.Return, ast.Raise, ast.Assert)):
                continue
            kept = [ast.Pass()] if len(body) == 1 else []
            body[i : i + 1] = kept
            yield "dropped term", statement.lineno
            body[i : i + len(kept)] = [statement]
    if function.name in _METHODS:
        yield from _written(function, written if function.name.endswith("_") else set())


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.If, ast.For, ast.With)):
            yield inner.body
            if isinstance(inner, ast.If) and inner.orelse:
                yield inner.orelse


def _written(function: ast.FunctionDef, allowed: set[str]) -> Iterator[tuple[str, int]]:
    """Write to each argument of a method at its start, which leaves its numbers as they are."""
    first = 1 if ast.get_docstring(function) else 0
    for argument in function.args.args[1:]:
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        if "Tensor" in annotation and not allowed & {argument.arg, _ANY}:
            there = f"if {argument.arg} is not None: " if "None" in annotation else ""
            function.body[first:first] = ast.parse(f"{there}{argument.arg}.mul_(1.0)").body
            yield "aliasing", function.lineno
            del function.body[first]

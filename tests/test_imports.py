"""Imports: rooms import from public faces, and nothing heavy stands behind `graphnet --help`."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import graphnet
from graphnet.sdk import load_registry

ROOT = Path(graphnet.__file__).parent
ROOMS = sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))
CORE = [room for room in ROOMS if room not in ("builtin", "nn")]


def imports(path: Path) -> list[tuple[str, str]]:
    """The (module, name) pairs that a file imports from the package."""
    return [
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("graphnet.")
        for alias in node.names
    ]


def test_rooms_import_from_the_public_face_of_other_rooms() -> None:
    """`from graphnet.sdk import Layer`, not `from graphnet.sdk.layer import Layer`."""
    found, wrong = 0, []
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).parts[0]
        for module, name in imports(path):
            room, *inside = module.split(".")[1:]
            if room != own and room in ROOMS:
                found += 1
                public = importlib.import_module(f"graphnet.{room}").__all__
                if inside or name not in public:
                    wrong.append(f"{path.relative_to(ROOT)}: from {module} import {name}")
    assert found > 300
    assert wrong == []


def test_the_verifier_shares_data_and_meta_tensors_with_the_planner_only() -> None:
    """The import contract sees modules; here are the names that come through the graph's face."""
    shared = {"graphnet.graph.ir", "graphnet.graph.meta_run", "graphnet.graph.observe"}
    taken = {
        name: getattr(importlib.import_module(module), name)
        for path in (ROOT / "plan" / "verify").glob("*.py")
        for module, name in imports(path)
        if module.startswith(("graphnet.graph", "graphnet.passes", "graphnet.plan.plan"))
    }
    found = {n: one.__module__ for n, one in taken.items() if isinstance(one, type | FunctionType)}
    assert len(found) >= 6
    assert {n: home for n, home in found.items() if home not in shared} == {
        "Plan": "graphnet.plan.plan",
        # Which results backward has is the contract of layers, not the work of the planner.
        "gradient_names": "graphnet.graph.invoke",
    }


def test_no_module_imports_one_that_imports_it_back() -> None:
    """Not even behind TYPE_CHECKING or inside a function; a room's `__init__` is its face, not a module."""
    reads: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        if path.name != "__init__.py":
            name = ".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts))
            found = imports(path)
            reads[name] = {module for module, _ in found} | {f"{m}.{n}" for m, n in found}
    circles = []
    for start in reads:
        reached, waiting = set(), [start]
        while waiting:
            new = reads.get(waiting.pop(), set()) - reached
            reached |= new
            waiting += new
        if start in reached:
            circles.append(start)
    assert len(reads) > 100
    assert circles == []


@pytest.mark.parametrize("plugin", ["cpu", "denoise", "example", "onnx", "triton"])
def test_plugins_import_public_names_only(plugin: str) -> None:
    wrong = []
    for path in sorted((ROOT.parent / "plugins" / f"graphnet-{plugin}" / "src").rglob("*.py")):
        for module, name in imports(path):
            room, *inside = module.split(".")[1:]
            if inside or (room in ROOMS and name not in importlib.import_module(module).__all__):
                wrong.append(f"{path.name}: from {module} import {name}")
    assert wrong == []


def test_every_room_says_what_comes_in_what_goes_out_and_what_it_imports() -> None:
    for room in ROOMS:
        words = importlib.import_module(f"graphnet.{room}").__doc__ or ""
        if room not in ("cli", "testing"):
            assert re.search(r"(comes?|come) in", " ".join(words.split())), room
        assert "imports" in words, room


def test_core_names_no_layer() -> None:
    """No string in the core is a built-in layer's or loss's name; only the built-in plugin has them."""
    registry = load_registry(entry_points=False)
    names = {*registry.layers, *registry.losses}
    assert len(names) >= 9
    wrong = []
    for path in (path for room in CORE for path in sorted((ROOT / room).rglob("*.py"))):
        tree = ast.parse(path.read_text())
        exported = {  # names of Python functions, in __all__
            id(constant)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for constant in ast.walk(node)
        }
        wrong += [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in names and id(node) not in exported
        ]
    assert wrong == []


PLUGINS = sorted((ROOT.parent / "plugins").glob("graphnet-*/src"))


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.parent.name)
def test_plugins_of_this_repository_import_public_names_only(folder: Path) -> None:
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        for module, name in imports(path):
            face = importlib.import_module(module)
            public = getattr(face, "__all__", None) or [n for n in vars(face) if n[0] != "_"]
            if module.count(".") > 1 or name not in public:
                wrong.append(f"{path.relative_to(folder)}: {module} {name}")
    assert wrong == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy_and_no_plugin(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "graphnet", "--help"], capture_output=True, check=True)
    code = (
        "import sys\n"
        "from graphnet.cli import run\n"
        f"status = run({arguments!r})\n"
        "heavy = {'torch', 'networkx', 'pydantic', 'rich', 'numpy', 'graphnet_denoise', 'ruamel'}\n"
        "print(status, sorted(heavy & set(sys.modules)))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines()[-1] == "0 []"


def test_rooms_are_attributes_of_the_package_before_anything_imports_them() -> None:
    rooms = [*(room for room in ROOMS if room != "cli"), "errors"]
    code = f"import graphnet as gn; print(*(getattr(gn, room).__name__ for room in {rooms}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [f"graphnet.{room}" for room in rooms], done.stderr


def test_names_of_the_package_are_all_there() -> None:
    assert sorted(graphnet.__all__) == sorted({*graphnet.__all__})
    for name in graphnet.__all__:
        assert getattr(graphnet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        _ = graphnet.Modle

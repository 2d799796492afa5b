"""Imports: one direction between modules, and nothing heavy behind `graphnet --help`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import graphnet
from graphnet.discovery import load_registry

ROOT = Path(graphnet.__file__).parent
# Each module may import those above it and in its own row.
ORDER = [
    {
        "errors",
        "garbage",
        "spec",
        "random",
        "layout",
        "padding",
        "cachedir",
        "cache",
        "files",
        "units",
    },
    {"native", "operators", "init"},
    {"definition"},
    {"layer", "hookspecs", "data"},
    {"calls"},
    {"multitensor"},
    {"registry", "observe", "watch"},
    {"losses"},
    {"discovery"},
    {"yamlfile"},
    {"describe"},
    {"expand"},
    {"graph"},
    {"cost", "dryrun", "terms", "edges"},
    {"machine"},
    {"measure"},
    {"build"},
    {"optim"},
    {"updates"},
    {"passes"},
    {"source", "standalone", "breakdown", "explain"},
    {"plan"},
    {"verify", "tiles"},
    {"executors"},
    {"turns"},
    {"device", "checkpoint"},
    {"options", "stopwatch"},
    {"compiler"},
    {"program"},
    {"model", "trace", "contributions"},
    {"timing", "plandata"},
    {"page"},
    {"builder", "schema", "scaffold", "nn", "gradients"},
    {"bridges"},
    {"config", "runfolder", "feed", "scoring"},
    {"train"},
    {"testing"},
    {"cli", "__main__"},
]
# The built-in plugin imports the plugin interface only, and nothing imports it: it is loaded by name.
SDK = {
    "definition",
    "errors",
    "spec",
    "init",
    "layout",
    "random",
    "layer",
    "multitensor",
    "calls",
    "native",
    "operators",
    "hookspecs",
    "optim",
    "executors",
}
PLUGIN = {"layers", "kernels", "optimizers", "builtin"}
FACADE = {("nn", "layers")}  # the paper's interface, over the built-in layers
FOR_TYPES = {
    ("program", "model"),
    ("source", "plan"),
    ("explain", "plan"),
    ("breakdown", "plan"),
    ("standalone", "plan"),
}


def imports() -> list[tuple[str, str]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("graphnet"):
                inside = (node.module or "").split(".")[1:]
                names = [inside[0]] if inside else [alias.name for alias in node.names]
                found.extend((parts[0], name) for name in names)
    return found


def test_imports_point_one_way() -> None:
    rank = {module: row for row, modules in enumerate(ORDER) for module in modules}
    found = imports()
    assert len(found) > 150
    wrong = []
    for module, imported in found:
        if module in PLUGIN:
            fine = imported in SDK | PLUGIN
        elif (module, imported) in FACADE | FOR_TYPES or module == imported:
            fine = True
        else:
            fine = imported in rank and rank[imported] <= rank[module]
        if not fine:
            wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_every_module_has_its_place() -> None:
    known = {module for modules in ORDER for module in modules} | PLUGIN | {"__init__"}
    present = {p.stem for p in ROOT.glob("*.py")} | {
        p.parent.name for p in ROOT.glob("*/__init__.py")
    }
    assert present == known


CORE = [module for row in ORDER for module in sorted(row) if module != "nn"]


def test_core_names_no_layer() -> None:
    """No string in the core is a built-in layer's or loss's name; only the built-in plugin has them."""
    registry = load_registry(entry_points=False)
    names = {*registry.layers, *registry.losses}
    assert len(names) >= 9
    paths = [p for module in CORE for p in (ROOT / f"{module}.py", *(ROOT / module).rglob("*.py"))]
    wrong = []
    for path in paths:
        tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
        wrong += [
            f"{path.name}:{node.lineno} {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in names
        ]
    assert wrong == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy_and_no_plugin(arguments: list[str]) -> None:
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


def test_names_of_the_package_are_all_there() -> None:
    assert sorted(graphnet.__all__) == sorted({*graphnet.__all__})
    for name in graphnet.__all__:
        assert getattr(graphnet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        _ = graphnet.Modle

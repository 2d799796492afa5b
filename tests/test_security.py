"""No code of the project runs or imports what a file says, except where this list says why it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = [
    *sorted((ROOT / "graphnet").rglob("*.py")),
    *sorted(ROOT.glob("plugins/*/src/**/*.py")),
]

FORBIDDEN = {
    "pickle": "runs code while it reads",
    "cPickle": "runs code while it reads",
    "dill": "runs code while it reads",
    "joblib": "reads pickles",
    "marshal": "reads code",
    "shelve": "reads pickles",
    "torch.load": "reads pickles",
}

# What a file of ours may do, and with which text.
ALLOWED = {
    ("graphnet/executors/eager.py", "exec"): "a plan's source, which graphnet has generated",
    ("graphnet/executors/to_fx.py", "exec"): "a graph's source, which torch.fx has generated",
    ("graphnet/inspection/step_timing.py", "exec"): "a plan's source, with a clock",
    ("graphnet/executors/to_fx.py", "import_module"): "modules that torch.fx names",
    (
        "graphnet/executors/background_compile.py",
        "import_module",
    ): "the modules of loaded layers, named by the process that has started this one",
    ("graphnet/cli/check.py", "import_module"): "the module that the user names",
    ("graphnet/cli/__init__.py", "import_module"): "the module of a command",
    ("graphnet/sdk/discovery.py", "import_module"): "graphnet's own plugins",
    ("graphnet/__init__.py", "import_module"): "graphnet's own rooms",
    ("plugins/graphnet-denoise/src/graphnet_denoise/__init__.py", "import_module"): "own modules",
    (
        "plugins/graphnet-denoise/src/graphnet_denoise/images/faults.py",
        "import_module",
    ): "the libraries of formats",
}


def used(path: Path) -> Iterator[str]:
    """The forbidden modules, and the functions that run or import something, that a file uses."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FORBIDDEN)
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN:
            yield node.module
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.rpartition(".")[2]
            if name in FORBIDDEN or name in ("eval", "exec", "__import__", "os.system"):
                yield name
            elif last == "import_module" and not isinstance(node.args[0], ast.Constant):
                yield last
            elif last == "load" and name.startswith(("np.", "numpy.")):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                if given.get("allow_pickle") != "False":
                    yield f"{name} without allow_pickle=False"
            elif any(word.arg == "shell" for word in node.keywords):
                yield f"{name} with shell"


def test_no_file_runs_or_imports_what_it_has_read() -> None:
    found = {(str(path.relative_to(ROOT)), what): "" for path in SOURCES for what in used(path)}
    assert len(SOURCES) > 400
    assert [one for one in found if one not in ALLOWED] == []
    assert [one for one in ALLOWED if one not in found] == []


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "import pickle\nfrom marshal import loads\neval('1')\nexec('1')\n__import__(x)\n"
        "importlib.import_module(name)\nimportlib.import_module('json')\ntorch.load(f)\n"
        "np.load(f)\nnp.load(f, allow_pickle=False)\nsubprocess.run(x, shell=True)\nos.system(x)\n"
    )
    assert sorted(used(path)) == [
        "__import__",
        "eval",
        "exec",
        "import_module",
        "marshal",
        "np.load without allow_pickle=False",
        "os.system",
        "pickle",
        "subprocess.run with shell",
        "torch.load",
    ]

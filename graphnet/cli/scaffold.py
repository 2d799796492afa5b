"""Scaffold: write the project of a new plugin from the files in plugin_template."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import keyword
import re
import string
from pathlib import Path

from graphnet.errors import PluginError

_NAME = re.compile(r"[a-z][a-z0-9]*-[a-z][a-z0-9-]*[a-z0-9]")

_TEMPLATES = importlib.resources.files("graphnet.cli") / "plugin_template"
_FILES = {  # a file of the project, and the template that it is written from
    "pyproject.toml": "pyproject.toml",
    "src/{module}/__init__.py": "layer.py",
    "tests/test_{short}.py": "test_layer.py",
    "src/{module}/py.typed": "py.typed",
    "README.md": "README.md",
    ".ci/run": "ci_run",
    ".github/workflows/tests.yml": "workflow.yml",
}


def write_project(name: str, into: Path) -> Path:
    """Write the project of a plugin `acme-swish`, with the layer acme/swish, and return its folder.

    Raises PluginError if the name does not have the form "namespace-layer", or the folder exists already.
    """
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"expected a name such as acme-swish (who, a hyphen, what; small letters and digits), "
            f"found {name!r}"
        )
    space, _, short = name.partition("-")
    words = {
        "name": name,
        "module": name.replace("-", "_"),
        "short": short.replace("-", "_"),
        "layer": f"{space}/{short.replace('-', '_')}",
        "title": _class_name(short),
        "host": ".".join(importlib.metadata.version("graphnet-framework").split(".")[:2]),
    }
    folder = into / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise PluginError(f"{folder} exists already; choose another name or --into") from None
    for place, template in _FILES.items():
        text = _template(template)
        path = folder / place.format(**words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(string.Template(text).substitute(words), encoding="utf-8")
    (folder / ".ci" / "run").chmod(0o755)
    return folder


def _class_name(short: str) -> str:
    """Return "SoftGate" for soft-gate; a name that Python or the template uses gets "Layer" at its end."""
    title = "".join(word.capitalize() for word in short.split("-"))
    used = set(re.findall(r"\w+", _template("layer.py")))
    return f"{title}Layer" if title in used or keyword.iskeyword(title) else title


def _template(name: str) -> str:
    return (_TEMPLATES / f"{name}.template").read_text(encoding="utf-8")

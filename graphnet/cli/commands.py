"""Commands: the table of graphnet's own commands and those of plugins, without importing their code.

To find a plugin's commands, its hook must run, so its module and with it torch must be imported, which takes
seconds. Therefore the table is kept in the cache. Its key contains everything that can change the table: the
installed plugins, their files, the folders of Python's path and the environment variables about plugins. So
the first
`graphnet --help` after a change takes seconds, and the following ones do not.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from graphnet.errors import CacheError
from graphnet.system import PLUGINS, Installed, installed, open_cache

OWN = {
    "train": ("graphnet.cli.train:train", "Train a model as a YAML file says."),
    "explain": ("graphnet.cli.explain:explain", "Show the plan of a model, step by step."),
    "export": (
        "graphnet.cli.export:command",
        "Write a model for other programs, or for torch alone.",
    ),
    "gradients": (
        "graphnet.cli.gradients:gradients",
        "Show each parameter's gradient, and its paths.",
    ),
    "verify": ("graphnet.cli.verify:verify", "Find damage in models and checkpoints."),
    "machine": ("graphnet.cli.machine:machine", "Measure this machine, for the times in explain."),
    "layers": ("graphnet.cli.layers:layers", "List the layers and losses that models can use."),
    "plugins": (
        "graphnet.cli.plugins:plugins",
        "List the plugins, and what is wrong with broken ones.",
    ),
    "check": ("graphnet.cli.check:check", "Run the conformance checks on layers and kernels."),
    "schema": ("graphnet.cli.schema:schema", "Print the JSON Schema of model files, for editors."),
}
"""Name -> ("module:attribute", one line of help)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A plugin's command: its name, help and target, and the distribution that it comes from."""

    name: str
    help: str
    target: str
    distribution: str


@dataclass(frozen=True, slots=True)
class Table:
    """The plugins' commands by name; and for a name that two plugins register, what is wrong."""

    commands: dict[str, Listed]
    taken: dict[str, str]


def table() -> Table:
    """The plugins' commands, from the cache or from their hooks.

    Raises:
        PluginError: a plugin is broken, and GRAPHNET_STRICT_PLUGINS is set.
    """
    points = installed(PLUGINS)
    if not points:
        return Table({}, {})
    with contextlib.suppress(CacheError):  # without a cache it takes seconds each time
        if saved := open_cache().choice(_key(points)):
            return Table({n: Listed(**one) for n, one in saved["commands"].items()}, saved["taken"])
    from graphnet.sdk import default_registry

    registry = default_registry()
    commands = {
        name: Listed(name, entry.value.help.strip(), entry.value.target, entry.plugin.distribution)
        for name, entry in registry.commands.items()
        if not entry.plugin.builtin
    }
    taken = {
        plugin.taken[1]: f"{plugin.distribution} {plugin.version} is broken: {plugin.error}"
        for plugin in registry.plugins
        if plugin.taken is not None and plugin.taken[0] == "commands"
    }
    rows = {name: asdict(one) for name, one in commands.items()}
    with contextlib.suppress(CacheError):
        # The key is made again: Python has written its compiled files into the folders meanwhile.
        open_cache().record_choice(_key(points), {"commands": rows, "taken": taken})
    return Table(commands, taken)


def _key(points: Sequence[Installed]) -> dict[str, Any]:
    here = os.getcwd()
    return {
        "commands": [
            [one.point.name, one.point.value, one.distribution, one.version, one.error]
            + [_stamp(file) for file in _files(one.point)]
            for one in points
        ],
        "path": [_stamp(Path(p)) for p in sys.path if p not in ("", here)],
        "fields": [one.name for one in fields(Listed)],
        "settings": {n: v for n, v in os.environ.items() if n.endswith("_PLUGINS")},
    }


def _stamp(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), status.st_mtime_ns, status.st_size]


def _files(point: EntryPoint) -> list[Path]:
    """The Python files of the package that an entry point names, found without importing it."""
    try:
        found = importlib.util.find_spec(point.module.partition(".")[0])
    except (AttributeError, ImportError, ValueError):  # no such module, or no name of one
        return []
    if found is None:
        return []
    if found.submodule_search_locations is None:
        return [Path(found.origin)] if found.origin else []
    return sorted(
        p for place in found.submodule_search_locations for p in Path(place).rglob("*.py")
    )

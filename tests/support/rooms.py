"""Which room of graphnet a file belongs to, where files lie in rooms and where they lie side by side."""

from __future__ import annotations

import sys
from pathlib import Path

ROOMS = (
    "errors",
    "system",
    "sdk",
    "description",
    "graph",
    "passes",
    "plan",
    "executors",
    "nn",
    "model",
    "inspection",
    "bridges",
    "training",
    "testing",
    "cli",
)
"""The rooms from low to high: a room may import those before it."""

BUILTIN = "builtin"
"""The built-in plugin: it imports `errors`, `system` and `sdk`, and no room imports it."""

CPU = "graphnet-cpu"
"""The plugin of kernels in C++, a distribution of its own where files lie in rooms."""

FACE = "face"
"""The public names of graphnet/__init__.py, and `python -m graphnet`."""

_ROOM_OF_MODULES = {
    "errors": "errors executors/failure",
    "system": "files cache cachedir units garbage native device executors/heap",
    "sdk": "spec init random layout definition layer multitensor calls data operators optim hookspecs "
    "registry discovery executors/executor",
    "builtin": "builtin layers kernels optimizers",
    "description": "yamlfile describe schema expand losses updates",
    CPU: "kernels/gemm kernels/gemm_operators kernels/chain_operators kernels/strided kernels/winograd "
    "kernels/winograd_operators",
    "graph": "graph build observe dryrun watch cost machine passes/lifetimes passes/aliases",
    "passes": "passes stopwatch",
    "plan": "options compiler plan source standalone tiles verify edges terms",
    "executors": "executors",
    "nn": "nn",
    "model": "model program turns checkpoint padding builder",
    "inspection": "breakdown plandata explain page web timing measure trace gradients contributions",
    "bridges": "bridges",
    "training": "train config feed scoring runfolder",
    "testing": "testing",
    "cli": "cli scaffold",
}
_ROOM_OF = {
    module: room for room, modules in _ROOM_OF_MODULES.items() for module in modules.split()
}


def room_of(path: Path, checkout: Path) -> str | None:
    """The room of a file, or the plugin that it belongs to; None for a file that belongs to neither.

    >>> room_of(Path("/a/graphnet/passes/fold.py"), Path("/a"))
    'passes'
    >>> room_of(Path("/a/graphnet/passes/lifetimes.py"), Path("/a"))
    'graph'
    >>> room_of(Path("/a/plugins/graphnet-cpu/src/graphnet_cpu/gemm.py"), Path("/a"))
    'graphnet-cpu'
    """
    if not path.is_relative_to(checkout):
        return None
    match path.relative_to(checkout).with_suffix("").parts:
        case ("graphnet", "__init__" | "__main__"):
            return FACE
        case ("graphnet", *inner):
            folder = inner[0] if inner[0] in (*ROOMS, BUILTIN) else None
            return _ROOM_OF.get("/".join(inner)) or _ROOM_OF.get(inner[0], folder)
        case ("plugins", plugin, "src", *_):
            return plugin
    return None


def use(checkout: Path) -> None:
    """Have Python import graphnet and its plugins from a checkout, before any other place."""
    sources = (str(path) for path in sorted(checkout.glob("plugins/*/src")))
    sys.path[:0] = [str(checkout), *sources]

"""Which room of graphnet a file belongs to, where files lie in rooms and where they lie side by side."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

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

FACE = "face"
"""The public names of graphnet/__init__.py, and `python -m graphnet`."""

_ROOM_OF_MODULES = {
    "errors": "errors executors/failure",
    "system": "files cache cachedir units garbage native device executors/heap",
    "sdk": "spec init random layout definition layer multitensor calls data operators optim hookspecs "
    "registry discovery executors/executor",
    "builtin": "builtin layers kernels optimizers",
    "description": "yamlfile describe schema expand losses updates",
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


def room_of(path: PurePosixPath) -> str | None:
    """The room of a file, by its path below graphnet/; None for a file that has no room.

    >>> room_of(PurePosixPath("passes/fold.py")), room_of(PurePosixPath("passes/lifetimes.py"))
    ('passes', 'graph')
    """
    if path.name in ("__init__.py", "__main__.py") and len(path.parts) == 1:
        return FACE
    folder = path.parts[0] if len(path.parts) > 1 else ""
    exact = _ROOM_OF.get(str(path.with_suffix("")))
    if exact is not None:
        return exact
    return _ROOM_OF.get(folder, folder if folder in (*ROOMS, BUILTIN) else None)


def use(checkout: Path) -> None:
    """Have Python import graphnet and its plugins from a checkout, before any other place."""
    sources = (str(path) for path in sorted(checkout.glob("plugins/*/src")))
    sys.path[:0] = [str(checkout), *sources]

"""Discovery: find installed plugins and load each on its own, so that a broken one does not stop others.

A plugin is an entry point of the group "graphnet.plugins". If an error occurs while a plugin is imported or
its hooks run, the error is recorded and the plugin is left out. Environment variables:

GRAPHNET_NO_PLUGINS=1          load the built-in plugin only
GRAPHNET_DISABLE_PLUGINS=a,b   leave out plugins by entry-point or distribution name, in any spelling
GRAPHNET_STRICT_PLUGINS=1      a broken plugin is an error, as in a test suite
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pluggy

from graphnet.errors import NameTakenError, PluginError, PluginWarning, nearest
from graphnet.sdk.collect import Entries, collect, declares_kinds
from graphnet.sdk.kinds import KINDS, PluginKind
from graphnet.sdk.registry import Plugin, Registry
from graphnet.system import (
    PLUGINS,
    Installed,
    installed,
    normalized,
    require,
    warn_of_namesake,
    without_gc,
)

BUILTIN = (
    "graphnet.builtin.plugin",
    "graphnet.executors.plugin",
    "graphnet.description.readers",
    "graphnet.passes.plugin",
    "graphnet.training.reporters",
    "graphnet.cli.plugin",
)


@without_gc()
def load_registry(
    *, plugins: Sequence[object] = (), entry_points: bool = True, builtin: Sequence[str] = BUILTIN
) -> Registry:
    """Load the built-in plugin, the installed ones, and others that are given.

    An installed plugin that is broken is left out, and recorded in `Registry.plugins`. A DistributionWarning
    says if the other project called graphnet is installed.

    Args:
        plugins: further modules or objects with hooks.
        entry_points: whether installed plugins are loaded.
        builtin: the modules of the built-in plugin.

    Raises:
        PluginError: one of `plugins` is broken, or an installed one while GRAPHNET_STRICT_PLUGINS is set.
        ContractError: a class in one of `plugins` does not define what its kind needs.

    >>> load_registry(entry_points=False).find("layers", "relu").name
    'relu'
    """
    if entry_points:
        warn_of_namesake()
    found: Entries = {kind: {} for kind in KINDS}
    kinds = dict(KINDS)
    loaded: list[Plugin] = []
    if builtin:
        own = Plugin("builtin", "graphnet-framework", _version("graphnet-framework"))
        parts = [collect(importlib.import_module(name), own, found, kinds) for name in builtin]
        loaded.append(replace(own, hooks=tuple(hook for part in parts for hook in part.hooks)))
    if entry_points and not _flag("GRAPHNET_NO_PLUGINS"):
        loaded.extend(_installed(found, kinds))
    for module in sorted(plugins, key=declares_kinds, reverse=True):
        name = getattr(module, "__name__", type(module).__name__)
        loaded.append(collect(module, Plugin(name, name, "local"), found, kinds))
    broken = [plugin for plugin in loaded if plugin.error]
    if broken and _flag("GRAPHNET_STRICT_PLUGINS"):
        causes = "\n".join(f"{p.name} ({p.distribution} {p.version}): {p.error}" for p in broken)
        raise PluginError(
            f"GRAPHNET_STRICT_PLUGINS is set, and these plugins are broken:\n{causes}"
        )
    ours = {kind: entries for kind, entries in found.items() if kind in KINDS}
    own_kinds = {kind: entries for kind, entries in found.items() if kind not in KINDS}
    return Registry(**ours, own=own_kinds, plugins=tuple(loaded))


@functools.cache
def default_registry() -> Registry:
    """The built-in and all installed plugins, loaded once in a process.

    >>> "conv2d" in default_registry().layers
    True
    """
    return load_registry()


def registry_or_default(registry: Registry | None) -> Registry:
    """A registry that a caller gave, or the default one for None. Raises InputError for anything else.

    >>> registry_or_default(None) is default_registry()
    True
    """
    if registry is None:
        return default_registry()
    require(registry, Registry, "registry", "a Registry, such as gn.sdk.load_registry()")
    return registry


def _installed(found: Entries, kinds: dict[str, PluginKind]) -> Iterable[Plugin]:
    """Load the installed plugins; those that declare kinds register first, since others may add to these."""
    candidates = installed(PLUGINS)
    off = _switched_off(candidates)
    loaded: dict[int, Plugin] = {}
    modules: dict[int, object] = {}
    for position, one in enumerate(candidates):
        plugin = Plugin(one.point.name, one.distribution, one.version, error=one.error)
        if plugin.error is None:
            if off & {normalized(plugin.name), normalized(plugin.distribution)}:
                plugin = replace(plugin, disabled=True)
            else:
                with _isolated(plugin) as result:
                    modules[position] = _import(one)
                plugin = result[-1]
        loaded[position] = plugin
    for position in sorted(modules, key=lambda i: (not declares_kinds(modules[i]), i)):
        with _isolated(loaded[position]) as result:
            result.append(collect(modules[position], loaded[position], found, kinds))
        loaded[position] = result[-1]
    return loaded.values()


def _import(one: Installed) -> object:
    if one.point.pattern.match(one.point.value) is None:
        raise PluginError(
            f"its entry point is {one.point.value!r}, expected 'module' or 'module:attribute'"
        )
    return one.point.load()


@contextlib.contextmanager
def _isolated(plugin: Plugin) -> Iterator[list[Plugin]]:
    """Run code of a plugin; the last item of the yielded list is then the plugin, with its error if any."""
    result = [plugin]
    try:
        # What a plugin prints while it is loaded must not end up in a command's output.
        with contextlib.redirect_stdout(sys.stderr):
            yield result
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # somebody else's code: anything may come, SystemExit too
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise  # its import was interrupted
        taken = error.taken if isinstance(error, NameTakenError) else None
        result.append(replace(plugin, error=_cause(error), taken=taken))


def _switched_off(candidates: Sequence[Installed]) -> set[str]:
    """The names in GRAPHNET_DISABLE_PLUGINS, normalized; a warning says which of them no plugin has."""
    names = os.environ.get("GRAPHNET_DISABLE_PLUGINS", "").split(",")
    off = {normalized(name): name.strip() for name in names if name.strip()}
    known = {normalized(name) for one in candidates for name in (one.point.name, one.distribution)}
    for name, given in off.items():
        if name not in known:
            message = (
                f"GRAPHNET_DISABLE_PLUGINS names {given!r}, which is no installed plugin. "
                f"{nearest(name, known)}"
            )
            if _flag("GRAPHNET_STRICT_PLUGINS"):
                raise PluginError(message)
            warnings.warn(message, PluginWarning, stacklevel=2)
    return set(off)


def _cause(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit({error.code!r}): ends the process when it is loaded"
    kind = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
    try:
        words = " ".join(str(error).split())
    except Exception as other:  # the text of the error is the plugin's code too
        words = f"its message cannot be read: {type(other).__name__}"
    return f"{kind}{words or 'no message'}{_place(error) if kind else ''}"


def _place(error: BaseException) -> str:
    """The file and line of a plugin's code in which an error arose, in brackets; "" where it is not known."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" [{error.filename}:{error.lineno}]"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_NOT_ITS)]
    return f" [{own[-1].filename}:{own[-1].lineno}]" if own else ""


_NOT_ITS = (str(Path(__file__).parents[1]), "<frozen", importlib.__path__[0], pluggy.__path__[0])


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "0"

"""Discovery: find installed plugins and load each on its own, so that a broken one stops nobody.

A plugin is an entry point of the group "graphnet.plugins". Whatever goes wrong while one is imported
or its hooks run is recorded with its cause; the others go on without it. Environment variables:

GRAPHNET_NO_PLUGINS=1          load the built-in plugin only
GRAPHNET_DISABLE_PLUGINS=a,b   leave out plugins by entry-point or distribution name
GRAPHNET_STRICT_PLUGINS=1      a broken plugin is an error, as in a test suite
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pluggy

from graphnet.errors import PluginError, nearest
from graphnet.sdk import hookspecs
from graphnet.sdk.kinds import KINDS, PluginKind
from graphnet.sdk.layer import CONTRACT
from graphnet.sdk.registry import Entry, Plugin, Registry
from graphnet.system import without_gc

GROUP = "graphnet.plugins"
BUILTIN = ("graphnet.builtin.plugin", "graphnet.executors.plugin")
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?")
Entries = dict[str, dict[str, Entry]]


@without_gc()
def load_registry(
    *, plugins: Sequence[object] = (), entry_points: bool = True, builtin: Sequence[str] = BUILTIN
) -> Registry:
    """Load the built-in plugin, the installed ones, and others that are given.

    An installed plugin that is broken is left out, and recorded in `Registry.plugins`.

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
    found: Entries = {kind: {} for kind in KINDS}
    loaded: list[Plugin] = []
    if builtin:
        own = Plugin("builtin", "graphnet-framework", _version("graphnet-framework"))
        parts = [_collect(importlib.import_module(name), own, found) for name in builtin]
        loaded.append(replace(own, hooks=tuple(hook for part in parts for hook in part.hooks)))
    if entry_points and not _flag("GRAPHNET_NO_PLUGINS"):
        loaded.extend(_installed(found))
    for module in plugins:
        name = getattr(module, "__name__", type(module).__name__)
        loaded.append(_collect(module, Plugin(name, name, "local"), found))
    broken = [plugin for plugin in loaded if plugin.error]
    if broken and _flag("GRAPHNET_STRICT_PLUGINS"):
        causes = "\n".join(f"{p.name} ({p.distribution} {p.version}): {p.error}" for p in broken)
        raise PluginError(
            f"GRAPHNET_STRICT_PLUGINS is set, and these plugins are broken:\n{causes}"
        )
    return Registry(**found, plugins=tuple(loaded))


@functools.cache
def default_registry() -> Registry:
    """The built-in and all installed plugins, loaded once in a process.

    >>> "conv2d" in default_registry().layers
    True
    """
    return load_registry()


@dataclass(frozen=True, slots=True)
class _Candidate:
    point: importlib.metadata.EntryPoint
    plugin: Plugin


def _installed(found: Entries) -> Iterator[Plugin]:
    disabled = {n.strip() for n in os.environ.get("GRAPHNET_DISABLE_PLUGINS", "").split(",")}
    for candidate in _candidates():
        plugin = candidate.plugin
        if plugin.error is None and {plugin.name, plugin.distribution} & disabled:
            yield replace(plugin, disabled=True)
        elif plugin.error is not None:
            yield plugin
        else:
            try:
                # What a plugin prints while it is imported must not end up in a command's output.
                with contextlib.redirect_stdout(sys.stderr):
                    plugin = _collect(candidate.point.load(), plugin, found)
            except (Exception, SystemExit) as error:  # somebody else's code: anything may come
                plugin = replace(plugin, error=_cause(error))
            yield plugin


def _candidates() -> list[_Candidate]:
    """The entry points of every installed distribution, by name; a shadowed twin says so."""
    candidates: list[_Candidate] = []
    seen: dict[str, str] = {}
    for dist in importlib.metadata.distributions():
        try:
            points = dist.entry_points.select(group=GROUP)
            if not points:
                continue  # to read the name and version of all that is installed takes a while
            name, version = dist.name, dist.version
        except Exception as error:  # damaged metadata
            broken = Plugin(str(dist), str(dist), "unknown", error=_cause(error))
            point = importlib.metadata.EntryPoint(str(dist), "", GROUP)
            candidates.append(_Candidate(point, broken))
            continue
        for point in points:
            plugin = Plugin(point.name, name, version)
            key = f"{re.sub(r'[-_.]+', '-', name).lower()}:{point.name}"
            if seen.get(key) == version:
                continue  # an editable install: its metadata stand beside the source as well
            if key in seen:
                plugin = replace(
                    plugin,
                    error=f"{name} is installed twice: version {version} is hidden by version "
                    f"{seen[key]}, which stands earlier on the path. Uninstall one.",
                )
            seen.setdefault(key, version)
            candidates.append(_Candidate(point, plugin))
    return sorted(candidates, key=lambda c: (c.plugin.distribution.lower(), c.plugin.name))


def _collect(module: object, plugin: Plugin, found: Entries) -> Plugin:
    """Call the hooks of one plugin; on any error nothing of it is kept."""
    _check_contract(module)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    known = [kind.hook for kind in KINDS.values()]
    try:
        manager.register(module)
        hooks = tuple(caller.name for caller in manager.get_hookcallers(module) or ())
        for name in hooks:
            if name not in known:
                raise PluginError(f"implements {name!r}, which is no hook. {nearest(name, known)}")
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error
    _check_marks(module, hooks, known)
    mine: Entries = {kind: {} for kind in KINDS}
    for kind in KINDS.values():
        register = _Register(kind, plugin, found[kind.name], mine[kind.name])
        getattr(manager.hook, kind.hook)(register=register)
    for name, entries in mine.items():
        found[name].update(entries)
    return replace(plugin, hooks=hooks)


def _check_contract(module: object) -> None:
    """A plugin may state the contract it was written for; it is checked before any hook runs."""
    stated = getattr(module, "GRAPHNET_CONTRACT", CONTRACT)
    if stated != CONTRACT:
        newer = isinstance(stated, int) and stated > CONTRACT
        remedy = "Upgrade graphnet-framework" if newer else "Install a newer version of the plugin"
        raise PluginError(
            f"was written for layer contract {stated!r}, this graphnet has {CONTRACT}. {remedy}."
        )


def _check_marks(module: object, hooks: Sequence[str], known: Sequence[str]) -> None:
    for name, value in inspect.getmembers(module, callable):
        if name.startswith("graphnet_") and name not in hooks:
            if name in known:
                raise PluginError(f"{name} is not marked; put @graphnet.hookimpl above it")
            raise PluginError(f"defines {name!r}, which is no hook. {nearest(name, known)}")
        del value
    if not hooks:
        raise PluginError(f"implements no hook. Known: {', '.join(known)}.")


@dataclass(frozen=True, slots=True)
class _Register:
    """What a hook is handed: checks each thing and notes it."""

    kind: PluginKind
    plugin: Plugin
    known: Mapping[str, Entry]
    mine: dict[str, Entry]

    def __call__(self, name: str, value: Any, *, version: int = 1) -> None:
        what = self.kind.singular
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(
                f"{what} name {name!r} must be 'namespace/name', in small letters, digits and '_'"
            )
        if self.kind.namespaced and "/" not in name and not self.plugin.builtin:
            space = re.sub(r"\W+", "_", self.plugin.distribution).lower()
            raise PluginError(
                f"{what} name {name!r} needs a namespace, such as '{space}/{name}'; "
                f"bare names are for the built-in ones"
            )
        self.kind.check(name, value)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise PluginError(f"{what} {name!r}: version must be 1 or more, found {version!r}")
        other = self.known.get(name) or self.mine.get(name)
        if other is not None:
            theirs = other.plugin
            raise PluginError(
                f"{what} name {name!r} is registered by {theirs.distribution} {theirs.version} "
                f"and by {self.plugin.distribution} {self.plugin.version}; one of them has to change it"
            )
        self.mine[name] = Entry(name, value, version, self.plugin)


def _cause(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit({error.code!r}): ends the process when it is imported"
    kind = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split()) or 'no message'}"


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "0"

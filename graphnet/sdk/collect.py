"""Collect: call the hooks of one plugin, and check each thing that it registers.

A plugin registers everything or nothing: if anything of it is wrong, what it registered before is dropped.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType, MethodType
from typing import Any

import pluggy

from graphnet.errors import NameTakenError, PluginError, nearest
from graphnet.sdk import hookspecs
from graphnet.sdk.contract import CONTRACT, changes_since
from graphnet.sdk.kinds import KINDS, PluginKind
from graphnet.sdk.registry import Entry, Plugin

Entries = dict[str, dict[str, Entry]]

_PREFIX = f"{hookspecs.PROJECT}_"
_ALIKE = 0.75  # from this likeness on, a function's name is taken for a misspelled hook


def collect(module: object, plugin: Plugin, found: Entries, kinds: dict[str, PluginKind]) -> Plugin:
    """Add what a plugin registers to `found`, and return the plugin with the names of its hooks.

    Args:
        module: the module or object that has the hooks.
        plugin: where it comes from.
        found: kind -> name -> entry, of all plugins before it.
        kinds: KINDS, and the kinds that plugins before it declare; those that it declares are added.

    Raises:
        PluginError: something of the plugin is wrong. Then `found` and `kinds` are unchanged.
        ContractError: a class does not define what its kind needs.
        Exception: whatever the plugin's own code raises.
    """
    if isinstance(module, type):
        raise PluginError(f"{module.__name__} is a class; give an instance, {module.__name__}()")
    _check_contract(module, plugin)
    manager = _Hooks(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module)
        marked = tuple(caller.name for caller in manager.get_hookcallers(module) or ())
        declared = _call(KINDS["kinds"], manager, plugin, found["kinds"])
        own = {name: entry.value.named(name) for name, entry in declared.items()}
        every = {**kinds, **own}
        _add_specs(manager, [kind for name, kind in every.items() if name not in KINDS])
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error
    known = [kind.hook for kind in every.values()]
    hooks = tuple(name for name in marked if name in known or not _is_optional(manager, name))
    for name in hooks:
        if name not in known:
            near = _alike(name, known)
            raise PluginError(
                f"implements {name!r}, which is no hook. {near or nearest(name, known)}"
            )
    _check_marks(module, marked, known)
    mine: Entries = {"kinds": declared}
    for kind in every.values():
        if kind.name != "kinds":
            mine[kind.name] = _call(kind, manager, plugin, found.get(kind.name, {}))
    for name, entries in mine.items():
        found.setdefault(name, {}).update(entries)
    kinds.update(own)
    return replace(plugin, hooks=hooks)


def declares_kinds(module: object) -> bool:
    """Whether a plugin has the hook that declares kinds: then others may register such things."""
    return _is_function(module, KINDS["kinds"].hook)


def _call(
    kind: PluginKind, manager: pluggy.PluginManager, plugin: Plugin, known: Mapping[str, Entry]
) -> dict[str, Entry]:
    """Call the hook of one kind, and return what it registers."""
    mine: dict[str, Entry] = {}
    register = _Register(kind, plugin, known, mine)
    caller: pluggy.HookCaller = getattr(manager.hook, kind.hook)
    for implementation in caller.get_hookimpls():
        _check_plain(kind.hook, implementation.function)
    _check_returned(kind.hook, caller(register=register))
    register.ended.append(True)
    return mine


def _add_specs(manager: pluggy.PluginManager, own: Sequence[PluginKind]) -> None:
    """Tell pluggy the hooks of kinds that plugins declare."""

    @hookspecs.hookspec
    def spec(register: hookspecs.Register) -> None:
        pass

    if own:
        manager.add_hookspecs(type("Specs", (), {kind.hook: spec for kind in own}))


class _Hooks(pluggy.PluginManager):
    """Looks for hooks among functions only: a property of a plugin is not evaluated."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if _is_function(plugin, name) else None


def _is_optional(manager: pluggy.PluginManager, hook: str) -> bool:
    """Whether a plugin marks the hook as one of another plugin, which may not be installed."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    return all(implementation.optionalhook for implementation in caller.get_hookimpls())


def _is_function(plugin: object, name: str) -> bool:
    static = inspect.getattr_static(plugin, name, None)
    return isinstance(static, (FunctionType, MethodType, staticmethod, classmethod))


def _check_contract(module: object, plugin: Plugin) -> None:
    """A plugin may state the contract it was written for; it is checked before any hook runs."""
    stated = inspect.getattr_static(module, "GRAPHNET_CONTRACT", CONTRACT)
    if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
        raise PluginError(
            f"GRAPHNET_CONTRACT must be a whole number of 1 or more, the contract that the plugin was "
            f"written for, found {stated!r}. This graphnet has {CONTRACT}."
        )
    if stated > CONTRACT:
        raise PluginError(
            f"was written for contract {stated}, this graphnet has {CONTRACT}. Upgrade graphnet-framework."
        )
    if stated < CONTRACT:
        raise PluginError(
            f"was written for contract {stated}, this graphnet has {CONTRACT}. Install a newer version of "
            f"{plugin.distribution}. Its author: change what is named here, then state GRAPHNET_CONTRACT = "
            f"{CONTRACT}. Since {stated}: {'; '.join(changes_since(stated))}."
        )


def _check_marks(module: object, hooks: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a function without a mark whose name is a hook's, or nearly."""
    for name in dir(module):
        if not name.startswith(_PREFIX) or name in hooks:
            continue
        if isinstance(inspect.getattr_static(module, name, None), property) and name in known:
            raise PluginError(
                f"{name} is a property; write a method, with @graphnet.hookimpl above it"
            )
        if not _is_function(module, name):
            continue
        if name in known:
            raise PluginError(f"{name} is not marked; put @graphnet.hookimpl above it")
        if near := _alike(name, known):
            raise PluginError(f"defines {name!r}, which is no hook. {near}")
    if not hooks:
        raise PluginError(f"implements no hook. Known: {', '.join(known)}.")


def _alike(name: str, known: Sequence[str]) -> str:
    """Suggest the hook for which a name is meant; empty if it is like none, as graphnet_version is."""
    endings = [hook.removeprefix(_PREFIX) for hook in known]
    ending = name.removeprefix(_PREFIX)
    close = difflib.get_close_matches(ending, endings, n=1, cutoff=_ALIKE)
    return f"Did you mean {_PREFIX + close[0]!r}?" if close else ""


def _check_plain(hook: str, function: Any) -> None:
    """Refuse a hook whose call would not run it."""
    plain = inspect.unwrap(function)
    plain = plain.func if isinstance(plain, functools.partial) else plain
    if inspect.isgeneratorfunction(plain):
        raise PluginError(
            f"{hook} has a `yield`, so calling it runs nothing. Call register in it instead"
        )
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        raise PluginError(
            f"{hook} is async, so calling it runs nothing. Write `def`, without async"
        )


def _check_returned(hook: str, returned: Sequence[object]) -> None:
    """Refuse what a hook returns: a hook that returns things instead of registering them adds nothing."""
    for value in returned:
        if inspect.iscoroutine(value):
            value.close()
        raise PluginError(
            f"{hook} returns {type(value).__name__}, and what a hook returns is not used. Call "
            f"register(name, thing) for each thing"
        )


@dataclass(frozen=True, slots=True)
class _Register:
    """The `register` that a hook gets: it checks and stores each thing."""

    kind: PluginKind
    plugin: Plugin
    known: Mapping[str, Entry]
    mine: dict[str, Entry]
    ended: list[bool] = field(default_factory=list)  # not empty once the hook has returned

    def __call__(self, name: str, value: Any, *, version: int = 1) -> None:
        what = self.kind.singular
        if self.ended:
            raise PluginError(
                f"{what} {name!r} is registered after {self.kind.hook} has returned: call register "
                f"in the hook"
            )
        if not isinstance(name, str) or not self.kind.names.fullmatch(name):
            raise PluginError(f"{what} name {name!r} must be {self.kind.naming}")
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
            raise NameTakenError(
                f"{what} name {name!r} is registered by {theirs.distribution} {theirs.version} "
                f"and by {self.plugin.distribution} {self.plugin.version}; one of them has to change it",
                (self.kind.name, name),
            )
        self.mine[name] = Entry(name, value, version, self.plugin)

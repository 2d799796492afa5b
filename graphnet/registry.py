"""Registry: everything plugins registered, immutable once loaded.

The built-in plugin comes in by the same hooks as everyone's. A plugin that fails to load is recorded
with its cause, and the others go on without it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pluggy

from graphnet import hookspecs
from graphnet.data import DataSet
from graphnet.definition import Definition
from graphnet.errors import (
    ContractError,
    DataError,
    DescriptionError,
    PluginError,
    Problem,
    UnknownNameError,
    nearest,
)
from graphnet.layer import Kernel, Layer, Loss, parse_pattern

GROUP = "graphnet.plugins"
BUILTIN = "graphnet.builtin"
_NAME = re.compile(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)?")


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where a registration came from; `error` is None for one that loaded."""

    name: str
    distribution: str
    version: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered thing: its name, the thing, its own version and its plugin."""

    name: str
    value: Any
    version: int
    plugin: Plugin


@dataclass(frozen=True)
class Registry:
    """Name -> Entry for each kind of thing, in the order of registration."""

    layers: Mapping[str, Entry] = field(default_factory=dict)
    kernels: Mapping[str, Entry] = field(default_factory=dict)
    optimizers: Mapping[str, Entry] = field(default_factory=dict)
    schedules: Mapping[str, Entry] = field(default_factory=dict)
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    metrics: Mapping[str, Entry] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()

    def find(self, kind: str, name: str) -> Entry:
        """The entry of that name; UnknownNameError offers the nearest names."""
        entries: Mapping[str, Entry] = getattr(self, kind)
        if name in entries:
            return entries[name]
        broken = [f"{p.name} ({p.error})" for p in self.plugins if p.error]
        hint = f" These plugins could not be loaded: {'; '.join(broken)}." if broken else ""
        raise UnknownNameError(
            f"unknown {kind.removesuffix('s')} {name!r}. {nearest(name, entries)}{hint}"
        )

    def make(self, kind: str, form: object) -> Any:
        """A definition from the form a description gives it: "name" or {"name": {field: value}}.

        An instance is returned as it is. Raises UnknownNameError or DescriptionError.
        """
        if isinstance(form, Definition):
            return form
        name, config = split_form(form)
        return self.find(kind, name).value(**config)

    def dataset(self, form: object) -> DataSet:
        """A data set from {"name": {...}} or from a bare path, by asking who can read that path."""
        if not isinstance(form, (str, Path)):
            dataset = self.make("datasets", form)
            assert isinstance(dataset, DataSet)
            return dataset
        path = Path(form)
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder. Give the path of a data set that exists."
            )
        for entry in self.datasets.values():
            if entry.value.claims(path):
                found: DataSet = entry.value(path=str(path))
                return found
        raise DataError(
            f"{path}: none of the installed data sets ({', '.join(self.datasets) or 'there is none'}) "
            f"can read this. Name one: {{NAME: {{path: {path}}}}}."
        )

    def name_of(self, definition: Definition | type[Definition]) -> str:
        """The name a definition's class is registered under, or its class name."""
        cls = definition if isinstance(definition, type) else type(definition)
        return self._names.get(cls, cls.__name__)

    @functools.cached_property
    def _names(self) -> dict[type, str]:
        kinds = (self.layers, self.kernels, self.optimizers, self.schedules, self.datasets)
        return {entry.value: name for entries in kinds for name, entry in entries.items()}

    def losses(self) -> Iterator[str]:
        """The names of the layers that are losses."""
        return (name for name, entry in self.layers.items() if issubclass(entry.value, Loss))


def split_form(form: object) -> tuple[str, Mapping[str, Any]]:
    """ "name" or {"name": {field: value}} as (name, fields); DescriptionError for anything else."""
    match form:
        case str():
            return form, {}
        case Mapping() if len(form) == 1:
            ((name, config),) = form.items()
            if isinstance(name, str) and (config is None or isinstance(config, Mapping)):
                return name, _frozen(config or {})
    raise DescriptionError(
        [Problem(f"expected a name or {{name: {{field: value}}}} with one name, found {form!r}")]
    )


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down: definitions are frozen, YAML only knows lists."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _expects(base: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, type) and issubclass(value, base)


# What each hook takes, in words and as a check.
_KINDS: Mapping[str, tuple[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "layers": ("a subclass of graphnet.Layer", _expects(Layer)),
        "kernels": ("a subclass of graphnet.Kernel", _expects(Kernel)),
        "optimizers": ("a subclass of graphnet.Optimizer", _expects(Definition)),
        "schedules": ("a subclass of graphnet.Schedule", _expects(Definition)),
        "datasets": ("a subclass of graphnet.DataSet", _expects(DataSet)),
        "metrics": ("a function (prediction, target) -> float", callable),
    }
)


def load_registry(*, plugins: Sequence[object] = (), entry_points: bool = True) -> Registry:
    """Load the built-in plugin, the installed ones, and the modules or objects in `plugins`.

    Raises PluginError when one of `plugins` is broken; an installed one that is broken is recorded in
    `Registry.plugins` and left out.
    """
    found: dict[str, dict[str, Entry]] = {kind: {} for kind in _KINDS}
    loaded: list[Plugin] = []

    builtin = Plugin("builtin", "graphnet-framework", _version("graphnet-framework"))
    _collect(importlib.import_module(BUILTIN), builtin, found)
    loaded.append(builtin)
    if entry_points:
        for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: p.name):
            dist = point.dist
            name, version = (dist.name, dist.version) if dist else ("unknown", "unknown")
            plugin = Plugin(point.name, name, version)
            try:
                _collect(point.load(), plugin, found)
            except (Exception, SystemExit) as error:  # a broken plugin must not stop the host
                plugin = Plugin(point.name, name, version, error=f"{type(error).__name__}: {error}")
            loaded.append(plugin)
    for module in plugins:
        name = getattr(module, "__name__", type(module).__name__)
        plugin = Plugin(name, name, "local")
        _collect(module, plugin, found)
        loaded.append(plugin)
    return Registry(**{k: MappingProxyType(v) for k, v in found.items()}, plugins=tuple(loaded))


@functools.cache
def default_registry() -> Registry:
    """The built-in and all installed plugins, loaded once in a process."""
    return load_registry()


def _collect(module: object, plugin: Plugin, found: dict[str, dict[str, Entry]]) -> None:
    """Call the hooks of one plugin; on any error nothing of it is kept."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {plugin.name!r}: {error}") from error
    mine: dict[str, dict[str, Entry]] = {kind: {} for kind in _KINDS}
    for kind in _KINDS:

        def register(name: str, value: Any, *, version: int = 1, kind: str = kind) -> None:
            mine[kind][name] = _entry(
                kind, name, value, version, plugin, {**found[kind], **mine[kind]}
            )

        getattr(manager.hook, f"graphnet_{kind}")(register=register)
    for kind, entries in mine.items():
        found[kind].update(entries)


def _entry(
    kind: str, name: str, value: Any, version: int, plugin: Plugin, known: Mapping[str, Entry]
) -> Entry:
    words, fits = _KINDS[kind]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"plugin {plugin.name!r}: {kind} name {name!r} must be 'namespace/name' in lower case"
        )
    if not fits(value):
        raise PluginError(f"plugin {plugin.name!r}: {name!r} must be {words}, found {value!r}")
    if inspect.isclass(value) and issubclass(value, Layer) and not hasattr(value, "signature"):
        raise ContractError(
            f"plugin {plugin.name!r}: {name!r} ({value.__name__}) defines no forward"
        )
    if inspect.isclass(value) and issubclass(value, Kernel):
        parse_pattern(value)
    if name in known:
        other = known[name].plugin
        raise PluginError(
            f"{kind} name {name!r} is registered by {plugin.distribution} {plugin.version} and by "
            f"{other.distribution} {other.version}; one of them has to change it"
        )
    return Entry(name, value, version, plugin)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "0"

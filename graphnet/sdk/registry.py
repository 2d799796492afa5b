"""Registry: everything that plugins have registered, by name; it does not change once it is loaded."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphnet.errors import (
    DataError,
    DescriptionError,
    Problem,
    UnknownNameError,
    nearest,
    sentence,
)
from graphnet.sdk.dataset import DataSet
from graphnet.sdk.definition import Definition
from graphnet.sdk.kinds import KINDS, PluginKind
from graphnet.sdk.validation import MUST_BE_GIVEN
from graphnet.system import as_path, normalized


@dataclass(frozen=True, slots=True)
class Plugin:
    """Where registrations come from: an entry point of an installed distribution, or a Python object.

    Attributes:
        name: the entry point's name.
        distribution: the name of the distribution, or of the object.
        version: the version of the distribution; "local" for an object.
        hooks: the names of the hooks that it implements.
        error: what is wrong with a broken one.
        disabled: whether GRAPHNET_DISABLE_PLUGINS names it.
        taken: the kind and the name, if it is broken because another plugin has this name.

    >>> from graphnet.sdk import default_registry
    >>> default_registry().layers["relu"].plugin.distribution
    'graphnet-framework'
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    error: str | None = None
    disabled: bool = False
    taken: tuple[str, str] | None = None

    @property
    def builtin(self) -> bool:
        """Whether it is the plugin that comes with graphnet."""
        return self.name == "builtin"

    @property
    def status(self) -> str:
        """In a word: "loaded", "broken" or "disabled"."""
        return "broken" if self.error else "disabled" if self.disabled else "loaded"

    @property
    def told(self) -> str:
        """A text for messages: the name of a plugin that is not loaded, and why it is not."""
        if self.error:
            return f"{self.distribution} {self.version}, which is broken: {sentence(self.error)}"
        return f"{self.distribution} {self.version}, which GRAPHNET_DISABLE_PLUGINS switches off."


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered thing.

    Attributes:
        name: the name under which it is registered.
        value: the thing: a class, a function or an instance, as its kind says.
        version: the version of its meaning, from 1.
        plugin: where it comes from.

    >>> from graphnet.sdk import default_registry
    >>> relu = default_registry().layers["relu"]
    >>> relu.name, relu.value.__name__, relu.version, relu.plugin.name
    ('relu', 'ReLU', 1, 'builtin')
    """

    name: str
    value: Any
    version: int
    plugin: Plugin


@dataclass(frozen=True, repr=False)
class Registry:
    """Name -> Entry for each kind of thing, in the order of registration.

    A class may have several names: the first is its own, the others are aliases, for files that use them.

    Attributes:
        layers, losses, kernels, optimizers, schedules, executors, datasets, metrics, reporters, readers,
            writers, operators, passes, commands, kinds: the things of this kind.
        own: the things of the kinds that plugins declare, by kind.
        plugins: all plugins, including those that are broken or switched off.
    """

    layers: Mapping[str, Entry] = field(default_factory=dict)
    losses: Mapping[str, Entry] = field(default_factory=dict)
    kernels: Mapping[str, Entry] = field(default_factory=dict)
    optimizers: Mapping[str, Entry] = field(default_factory=dict)
    schedules: Mapping[str, Entry] = field(default_factory=dict)
    executors: Mapping[str, Entry] = field(default_factory=dict)
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    metrics: Mapping[str, Entry] = field(default_factory=dict)
    reporters: Mapping[str, Entry] = field(default_factory=dict)
    readers: Mapping[str, Entry] = field(default_factory=dict)
    writers: Mapping[str, Entry] = field(default_factory=dict)
    operators: Mapping[str, Entry] = field(default_factory=dict)
    passes: Mapping[str, Entry] = field(default_factory=dict)
    commands: Mapping[str, Entry] = field(default_factory=dict)
    kinds: Mapping[str, Entry] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Entry]] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()

    @functools.cached_property
    def every_kind(self) -> Mapping[str, PluginKind]:
        """KINDS and the kinds that plugins declare, by name."""
        return {**KINDS, **{name: entry.value.named(name) for name, entry in self.kinds.items()}}

    def __repr__(self) -> str:
        counts = ((len(self.of_kind(name)), name) for name in KINDS)
        told = ", ".join(f"{count} {name}" for count, name in counts if count)
        return f"Registry({len(self.plugins)} plugins: {told})"

    def of_kind(self, kind: str) -> Mapping[str, Entry]:
        """The entries of a kind, by name.

        Raises:
            UnknownNameError: it is none of KINDS, and no loaded plugin declares it.
        """
        name = self._kind(kind).name
        entries: Mapping[str, Entry] = self.own[name] if name in self.own else getattr(self, name)
        return entries

    def _kind(self, kind: str) -> PluginKind:
        if kind not in self.every_kind:
            raise UnknownNameError(f"unknown kind {kind!r}. {self._where(kind, self.every_kind)}")
        return self.every_kind[kind]

    def find(self, kind: str, name: str) -> Entry:
        """The entry of a name.

        Raises:
            UnknownNameError: nothing of this kind has the name; the message says the nearest names, or that a
                plugin is missing.
        """
        entries = self.of_kind(kind)
        if name in entries:
            return entries[name]
        raise UnknownNameError(
            f"unknown {self._kind(kind).singular} {name!r}. {self._where(name, entries)}"
        )

    def _where(self, name: str, entries: Iterable[str]) -> str:
        """Where an unknown name may come from: its broken plugin, or a similar name."""
        space, slash, _ = name.partition("/")
        absent = [p for p in self.plugins if p.status != "loaded"]
        own = [p for p in absent if slash and _is_of(space, p)]
        if own:
            return " ".join(f"It may be of {p.told}" for p in own)
        near = nearest(name, entries)
        missing = ""
        if slash and not any(known.startswith(f"{space}/") for known in entries):
            missing = f"No loaded plugin has the namespace {space!r}: install the one that does."
        if "Did you mean" in near:
            return f"{near} {missing}".rstrip()
        told = " ".join(p.told for p in absent)
        words = [f"Plugins that are not loaded: {told}"] if told else []
        return " ".join([*words, missing or near])

    def make(self, kind: str, form: object) -> Any:
        """Make a definition from the form that a model file or training file uses.

        Args:
            kind: one of KINDS, such as "optimizers", or a kind that a plugin declares, whose things are
                classes.
            form: "name" or {"name": {field: value}}. An instance is returned as it is.

        Raises:
            UnknownNameError: nothing of this kind has the name, or there is no such kind of classes.
            DescriptionError: the form is none of these, or fields are wrong; the paths begin with the name.

        >>> from graphnet.sdk import default_registry
        >>> default_registry().make("optimizers", {"sgd": {"lr": 0.1}}).lr
        0.1
        """
        made = self._kind(kind)
        if not made.bases:
            raise UnknownNameError(
                f"a {made.singular} is not made of a form: take registry.{kind}[name].value"
            )
        if made.fits(type(form)):
            return form
        if not isinstance(form, (str, Mapping)):
            raise DescriptionError([Problem(made.refusal(form))])
        name, config = split_form(form)
        try:
            return self.find(kind, name).value(**config)
        except DescriptionError as error:
            problems = [one if config else _with_form(one, name) for one in error.problems]
            raise DescriptionError([one.under(name) for one in problems]) from None

    def dataset(self, form: object) -> DataSet:
        """Make a data set from a form that `make` takes, or from a path that one of the data sets claims.

        Raises:
            DataError: nothing lies at the path, or no data set can read it.
            UnknownNameError, DescriptionError: as `make`.
        """
        if not isinstance(form, (str, Path)):
            dataset = self.make("datasets", form)
            assert isinstance(dataset, DataSet)
            return dataset
        path = as_path(form, "data")
        if str(form) in self.datasets and not path.exists():
            named: DataSet = self.make("datasets", str(form))
            return named
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder, and no data set of this name. Give the path of a file or "
                f"folder, or a name with its fields, as {{NAME: {{path: PATH}}}}. "
                f"{nearest(str(form), self.datasets)}"
            )
        for entry in self.datasets.values():
            if entry.value.claims(path):
                found: DataSet = entry.value(path=str(path))
                return found
        raise DataError(
            f"{path}: none of the installed data sets ({', '.join(self.datasets) or 'there is none'}) "
            f"can read this. Name one: {{NAME: {{path: {path}}}}}."
        )

    def entry_of(self, definition: Definition | type[Definition]) -> Entry | None:
        """The entry under which a definition's class is registered, the first of several; or None."""
        return self._entries.get(definition if isinstance(definition, type) else type(definition))

    def is_named(self, layer: type, name: str) -> bool:
        """Whether a layer or loss is registered under a name, be it one of several that it has."""
        entries = (kind.get(name) for kind in (self.layers, self.losses))
        return any(entry is not None and entry.value is layer for entry in entries)

    def name_of(self, definition: Definition | type[Definition]) -> str:
        """The name under which a definition's class is registered, the first of several, or its own name."""
        entry = self.entry_of(definition)
        cls = definition if isinstance(definition, type) else type(definition)
        return cls.__name__ if entry is None else entry.name

    @functools.cached_property
    def _entries(self) -> dict[object, Entry]:
        found: dict[object, Entry] = {}
        for kind in self.every_kind:
            for entry in self.of_kind(kind).values():
                found.setdefault(entry.value, entry)
        return found


def _is_of(space: str, plugin: Plugin) -> bool:
    """Whether a namespace is that of a plugin, going by their names: acme and acme-layers."""
    names = (normalized(plugin.distribution), normalized(plugin.name))
    return any(f"{name}-".startswith(f"{normalized(space)}-") for name in names)


def _with_form(problem: Problem, name: str) -> Problem:
    """The problem of a name that stands alone; that of a missing field says how fields are given."""
    if not problem.path or problem.message != MUST_BE_GIVEN:
        return problem
    example = f"{{{name!r}: {{{problem.path!r}: VALUE}}}}"
    return replace(problem, message=f"{sentence(problem.message)} Write {example}.")


def split_form(form: object) -> tuple[str, Mapping[str, Any]]:
    """Split "name" or {"name": {field: value}} into the name and the fields, with lists as tuples.

    Raises:
        DescriptionError: it has another form.

    >>> split_form({"huber": {"delta": 0.1}})
    ('huber', {'delta': 0.1})
    """
    match form:
        case str():
            return form, {}
        case Mapping() if len(form) == 1:
            ((name, config),) = form.items()
            if isinstance(name, str) and (config is None or isinstance(config, Mapping)):
                return name, frozen(config or {})
    raise DescriptionError(
        [Problem(f"expected a name or {{name: {{field: value}}}} with one name, found {form!r}")]
    )


def frozen(value: Any) -> Any:
    """Turn lists into tuples, at any depth: definitions are frozen, and YAML has lists only.

    >>> frozen({"sizes": [1, [2, 3]]})
    {'sizes': (1, (2, 3))}
    """
    if isinstance(value, Mapping):
        return {key: frozen(item) for key, item in value.items()}
    return tuple(frozen(item) for item in value) if isinstance(value, list) else value


def thawed(value: Any) -> Any:
    """Tuples as lists, at any depth: fields of a definition as a model file states them.

    >>> thawed({"sizes": (1, (2, 3))})
    {'sizes': [1, [2, 3]]}
    """
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    return [thawed(item) for item in value] if isinstance(value, list | tuple) else value

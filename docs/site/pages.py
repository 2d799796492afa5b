"""The generated reference: the contract of plugins, other public names, errors, and all registered things."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from types import ModuleType

import graphnet
import graphnet.errors
import graphnet.sdk
import graphnet.testing
from docs.site import reference
from graphnet.sdk import CHANGES, CONTRACT, KINDS, Definition, Entry, default_registry, hookspecs

GROUPS = {
    "Layers": ("Definition", "Layer", "Loss", "Spatial"),
    "Kernels": ("Kernel", "Site", "MultiTensorKernel"),
    "Training": ("Optimizer", "Schedule", "Metric", "Reporter", "Report", "Running"),
    "Records of a training": ("Steps", "Epoch", "Decided", "Stopped"),
    "Data": ("DataSet", "Pairs", "Stream", "Gallery"),
    "Compiling and running": ("Pass", "Rewritable", "Executor", "Run", "Event"),
    "Files, commands, operators, kinds": ("ModelFile", "Command", "Node", "Operand", "OwnKind"),
    "Tensors": ("Spec", "ParameterSpec", "StateSpec", "Constant", "Uniform"),
}
"""The classes from which plugins derive, or whose instances they get; each attribute has an example."""


def contract() -> str:
    """The contract: hooks, then each class from which plugins derive or whose instances they get."""
    parts = [
        "# The contract",
        f"This page is made from the source of graphnet. It is contract {CONTRACT}: all that the author of a "
        "plugin relies on. Every class can be imported from `graphnet.sdk`, most of them also from "
        "`graphnet`. In the examples, `torch` is imported.",
        "## Hooks",
        "A hook is a function of the plugin with the mark `@graphnet.hookimpl`. graphnet calls it once, when "
        "plugins are loaded.",
    ]
    for kind in KINDS.values():
        said = reference.markdown(inspect.getdoc(getattr(hookspecs, kind.hook)) or "")
        parts.append(
            f"### {kind.hook}(register) {{ #{kind.hook} }}\n\n{said}\n\nExpects {kind.expected}."
        )
    for title, names in GROUPS.items():
        parts.append(f"## {title}")
        parts += [
            reference.class_page(getattr(graphnet.sdk, name), name, level=3) for name in names
        ]
    parts.append("## Changes of the contract")
    for number, changes in sorted(CHANGES.items(), reverse=True):
        listed = "\n".join(f"- {reference.escaped(change)}." for change in changes)
        parts.append(
            f"A plugin for contract {number - 1} needs these changes for contract {number}:\n\n{listed}"
        )
    return "\n\n".join(parts)


def sdk() -> str:
    """The other names of graphnet.sdk."""
    told = {name for names in GROUPS.values() for name in names}
    names = [name for name in graphnet.sdk.__all__ if name not in told]
    return _module(
        graphnet.sdk, "More names of graphnet.sdk", names,
        "Functions, types and constants for authors of plugins. [The contract](contract.md) has the classes "
        "that plugins derive from.",
    )  # fmt: skip


def face() -> str:
    """What `import graphnet` gives beside the names of the SDK."""
    names = [name for name in graphnet.__all__ if name not in graphnet.sdk.__all__]
    return _module(
        graphnet, "import graphnet as gn", names,
        "These names are imported when they are first used. `graphnet` also has the classes of "
        "[the contract](contract.md).",
    )  # fmt: skip


def testing() -> str:
    """The conformance kit."""
    return _module(
        graphnet.testing, "graphnet.testing", list(graphnet.testing.__all__),
        "The conformance kit checks a layer, kernel or optimizer. It is used in a plugin's own tests.",
    )  # fmt: skip


def errors() -> str:
    """Every error and warning."""
    classes = {
        name: value for name, value in vars(graphnet.errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }  # fmt: skip
    parts = [
        "# Errors and warnings",
        "All are in `graphnet.errors`. `except GraphnetError` catches every error of graphnet.",
    ]
    for name, value in classes.items():
        bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
        parts.append(f"## {name}\n\nA {bases}. {reference.markdown(inspect.getdoc(value) or '')}")
    return "\n\n".join(parts)


def registered() -> str:
    """Everything that is registered where the site is built, kind by kind."""
    registry = default_registry()
    entries: list[Entry]
    parts = [
        "# Layers and everything else that files can name",
        "This page lists what a model file, a training file or a command can name, if the plugins of "
        "graphnet's repository are installed.",
    ]
    for kind in registry.every_kind.values():
        entries = [e for e in registry.of_kind(kind.name).values() if _is_definition(e.value)]
        if entries:
            parts.append(f"## {kind.name.replace('_', ' ').capitalize()}")
        shared: dict[type, None] = {}
        for entry in entries:
            doc = reference.markdown(inspect.getdoc(entry.value) or "")
            of = "" if entry.plugin.builtin else f" (of {entry.plugin.distribution})"
            said = [
                f"### {entry.name}{of} {{ #{kind.name}-{entry.name} }}",
                doc,
                _fields(entry.value),
            ]
            bases = {base: None for base in entry.value.__mro__[1:] if _is_shared(base)}
            if bases:
                named = ", ".join(
                    f"[{base.__name__}](#{kind.name}-{base.__name__})" for base in bases
                )
                said.append(f"More in {named}.")
            shared.update(bases)
            parts.extend(said)
        for base in shared:
            head = f"### {base.__name__} {{ #{kind.name}-{base.__name__} }}"
            text = reference.markdown(inspect.getdoc(base) or "")
            parts.append(f"{head}\n\nA base class, which has no name in files. {text}")
    return "\n\n".join(parts)


def _is_definition(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Definition)


def _is_shared(base: type) -> bool:
    """Whether a base of a registered class says something that the class itself does not say again."""
    told = base.__module__.startswith(("graphnet.sdk", "builtins"))
    return not told and base.__module__.startswith("graphnet") and bool(vars(base).get("__doc__"))


def _fields(definition: type[Definition]) -> str:
    """The fields of a definition and their defaults, in one line."""
    stated = [
        f"`{one.name}`" + ("" if one.default is MISSING else f" = `{one.default!r}`")
        for one in fields(definition)  # type: ignore[arg-type]
    ]
    return f"**Fields**: {', '.join(stated)}." if stated else "It has no fields."


def _module(module: ModuleType, title: str, names: list[str], text: str) -> str:
    pages = [reference.value_page(module, name) for name in sorted(names, key=str.lower)]
    return "\n\n".join([f"# {title}\n\n{text}", *pages])

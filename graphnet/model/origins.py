"""Origins: the distributions from which the code of layers comes, with their versions and licences."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from graphnet.sdk import Entry, Registry

_CORE = "graphnet-framework"


@dataclass(frozen=True, slots=True)
class Origins:
    """Where copied code comes from.

    Attributes:
        version: the version of graphnet.
        versions: the versions of graphnet, torch and the plugins, as text.
        told: a line for each distribution: its name, version and licence.
        licences: the name of a file -> the distribution, and the text of its licence.
    """

    version: str
    versions: str
    told: tuple[str, ...]
    licences: Mapping[str, tuple[str, str]]


def packages(registry: Registry) -> frozenset[str]:
    """The top packages of the modules in which plugins define layers and kernels."""
    return frozenset(_package(entry) for entry in _entries(registry))


def origins(modules: Collection[str], registry: Registry) -> Origins:
    """Say where the code of these modules comes from."""
    tops = {module.partition(".")[0] for module in modules}
    of = {_package(entry): entry.plugin for entry in _entries(registry)}
    told: dict[str, str] = {}
    licences: dict[str, tuple[str, str]] = {}
    for top in sorted(tops | {"graphnet"}):
        plugin = of.get(top)
        name = _CORE if top == "graphnet" else plugin.distribution if plugin else top
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            told[name] = f"{top}, a module that is not of an installed distribution"
            continue
        licence = found.metadata["License-Expression"] or found.metadata["License"]
        told[name] = f"{name} {found.version}, licence: {licence or 'see its distribution'}"
        for path in found.files or ():
            if path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE", "COPYING")):
                file = f"{path.name.partition('.')[0]}-{name}.txt"
                licences[file] = (name, Path(path.locate()).read_text(encoding="utf-8"))
    version = importlib.metadata.version(_CORE)
    return Origins(
        version,
        f"graphnet {version} with torch {torch.__version__}",
        tuple(told.values()),
        licences,
    )


def _entries(registry: Registry) -> list[Entry]:
    return [*registry.layers.values(), *registry.kernels.values()]


def _package(entry: Entry) -> str:
    return str(entry.value.__module__).partition(".")[0]

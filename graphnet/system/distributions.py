"""Distributions: the entry points of what is installed, each with the distribution that it comes from.

Metadata can be damaged, and a distribution can be installed several times. Nothing here stops at one of them:
an entry point that cannot be used has an `error` that says why.
"""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

from graphnet.errors import DistributionWarning

PLUGINS = "graphnet.plugins"  # the group of the entry points of plugins


@dataclass(frozen=True, slots=True)
class Installed:
    """An entry point, the name and version of its distribution, and what is wrong with that, if anything."""

    point: EntryPoint
    distribution: str
    version: str
    error: str | None = None


def normalized(name: str) -> str:
    """The name of a distribution as package indexes compare it: small letters, and "-" for "-", "_" and ".".

    >>> normalized("Acme_Layers")
    'acme-layers'
    """
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def installed(group: str) -> list[Installed]:
    """The entry points of a group, by distribution and name.

    Where a distribution is installed twice, the one that Python imports has its entry points; those of the
    other have an error, unless it has the same version: an editable install has metadata beside its source
    too.
    """
    found: list[Installed] = []
    seen: set[tuple[str, str]] = set()
    for dist in importlib.metadata.distributions():
        points = list(_points(dist, group))
        if points and (key := (normalized(points[0].distribution), points[0].version)) not in seen:
            seen.add(key)
            found += points
    return sorted(found, key=lambda one: (normalized(one.distribution), one.point.name))


def warn_of_namesake() -> None:
    """Warn if the package index's other project called graphnet is installed: it has our import name.

    pip unpacks both into one folder, where the files of one replace those of the other without a word.
    """
    for other in importlib.metadata.distributions(name="graphnet"):
        warnings.warn(
            f"graphnet {other.version} is installed, another project, whose files lie in the same folder as "
            f"those of graphnet-framework and may have replaced some of them. Keep one of the two: "
            f"`pip uninstall graphnet graphnet-framework`, then `pip install graphnet-framework`",
            DistributionWarning,
            stacklevel=2,
        )
        return


def _points(dist: Distribution, group: str) -> Iterator[Installed]:
    try:
        points = list(dist.entry_points.select(group=group))
    except Exception as error:  # damaged metadata can raise anything
        yield _damaged(dist, group, f"{type(error).__name__}: {error}")
        return
    if not points:
        return  # to read the name and version of all that is installed takes a while
    try:
        name, version = dist.name, dist.version
    except Exception as error:
        yield _damaged(dist, group, f"{type(error).__name__}: {error}")
        return
    if not name or not version:
        missing = "Name" if not name else "Version"
        yield _damaged(dist, group, f"its metadata have no {missing}. Install it again.")
        return
    fault = _shadowed(dist, name, version)
    names: set[str] = set()
    for point in points:
        wrong = fault
        if wrong is None and point.name in names:
            wrong = (
                f"has two entry points called {point.name!r}; one of them has to change its name"
            )
        names.add(point.name)
        yield Installed(point, name, version, wrong)


def _damaged(dist: Distribution, group: str, cause: str) -> Installed:
    label = Path(str(getattr(dist, "_path", dist))).name  # the only name that is left
    return Installed(EntryPoint(label, "", group), label, "unknown", " ".join(cause.split()))


def _shadowed(dist: Distribution, name: str, version: str) -> str | None:
    """Why another installation of the same distribution is the one in use; None if this one is."""
    others = list(importlib.metadata.distributions(name=name))
    place = str(dist.locate_file(""))
    for other in others:
        there = str(other.locate_file(""))
        if there == place:
            break
        if other.version != version:
            return (
                f"{name} is installed twice: version {version} is hidden by version {other.version}, "
                f"which stands earlier on the path. Uninstall one."
            )
    beside = [o.version for o in others if str(o.locate_file("")) == place and o.version]
    newest = max(beside, key=_release, default=version)
    if newest != version:
        return (
            f"{name} is installed twice: the metadata of version {version} lie in the folder of version "
            f"{newest}, and are left over. Delete them."
        )
    return None


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: (1, 10) for "1.10rc1"."""
    numbers = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in numbers[1].split(".")) if numbers else ()

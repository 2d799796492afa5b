"""requirements.lock has what make install needs, in releases that the projects allow, each with hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOT_LOCKED = re.compile(
    "torch|graphnet-.*"
)  # builds of torch differ, and our own folders are edited


def groups(project: dict[str, Any], name: str) -> Iterator[str]:
    """The requirements of a dependency group, and of those that it includes."""
    for one in project["dependency-groups"][name]:
        if isinstance(one, str):
            yield one
        else:
            yield from groups(project, one["include-group"])


def needed() -> Iterator[Requirement]:
    """What make install needs on this Python and platform."""
    for line in (ROOT / "requirements.in").read_text().splitlines():
        if line.startswith("#"):
            continue
        folder, _, extras = line.removeprefix("-e ").rstrip("]").partition("[")
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())
        texts = list(project["project"]["dependencies"])
        for extra in filter(None, extras.split(",")):
            texts += project["project"]["optional-dependencies"][extra]
        for group in {".": ["dev"], "plugins/graphnet-onnx": ["test"]}.get(folder, []):
            texts += groups(project, group)
        for requirement in map(Requirement, texts):
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def locked() -> dict[str, str]:
    """Name -> the locked release for this Python and platform."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?! )", (ROOT / "requirements.lock").read_text().strip()):
        text, *hashes = entry.split(" \\\n")
        requirement = Requirement(text)
        assert hashes, text
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", one) for one in hashes), text
        if requirement.marker is None or requirement.marker.evaluate():
            found[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix(
                "=="
            )
    return found


def test_the_lock_has_a_release_of_each_requirement_that_its_project_allows() -> None:
    releases = locked()
    wanted = [one for one in needed() if not NOT_LOCKED.fullmatch(one.name)]
    assert len(wanted) > 40
    for requirement in wanted:
        release = releases.get(canonicalize_name(requirement.name))
        assert release is not None, f"{requirement}: run make lock"
        assert requirement.specifier.contains(release), f"{requirement}, {release}: run make lock"

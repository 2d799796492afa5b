"""What MkDocs calls to build the site: adds pages from outside docs/ and generated ones; mends links."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.site import commands, pages

ROOT = Path(__file__).parents[2]
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    **{
        str(path.relative_to(ROOT)): f"{path.parts[-3]}/{path.parent.name}.md"
        for kind in ("examples", "plugins")
        for path in sorted((ROOT / kind).glob("*/README.md"))
    },
}
"""A page of the repository outside docs/ -> its place in the site."""
GENERATED: Mapping[str, Callable[[], str]] = {
    "reference/contract.md": pages.contract,
    "reference/sdk.md": pages.sdk,
    "reference/graphnet.md": pages.face,
    "reference/testing.md": pages.testing,
    "reference/errors.md": pages.errors,
    "reference/registered.md": pages.registered,
    "reference/commands.md": commands.page,
}
_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?(\))")
_PLACES = {place: name for name, place in OUTSIDE.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, the generated ones, and the files that pages link to."""
    for name, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text()))
    for place, make in GENERATED.items():
        files.append(File.generated(config, place, content=make()))
    for file in list(files.documentation_pages()):
        if file.src_uri not in GENERATED:
            for name in _linked(file.content_string, _repository_path(file.src_uri)):
                static = _static(name)
                if static and files.get_file_from_path(static) is None:
                    content = (ROOT / name).read_bytes()
                    files.append(File.generated(config, static, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make each link that leads to a file of the repository lead to its place in the site."""
    here = page.file.src_uri
    return markdown if here in GENERATED else relinked(markdown, here)


def relinked(markdown: str, here: str) -> str:
    """The text of a page at a place of the site, with links to places of the site."""
    home = _repository_path(here)

    def new(match: re.Match[str]) -> str:
        if "://" in match[2] or match[2].startswith("mailto:"):
            return match[0]
        name = posixpath.normpath(posixpath.join(posixpath.dirname(home), match[2]))
        place = _place(name)
        target = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{match[1]}{target}{match[3] or ''}{match[4]}"

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else _LINK.sub(new, part) for part in parts)


def _repository_path(place: str) -> str:
    return _PLACES.get(place, f"docs/{place}")


def _place(name: str) -> str:
    """The place in the site of a file of the repository."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    return name.removeprefix("docs/") if name.startswith("docs/") else f"files/{name}"


def _static(name: str) -> str | None:
    """The place of a file that is no page, such as a script; None for what the site has anyway."""
    place = _place(name)
    return place if place.startswith("files/") else None


def _linked(text: str, home: str) -> list[str]:
    names = [match[2] for match in _LINK.finditer(text) if "://" not in match[2]]
    return [posixpath.normpath(posixpath.join(posixpath.dirname(home), name)) for name in names]

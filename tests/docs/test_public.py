"""What is public is on its page and in a list, and is all that plugins, examples and docs use."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from pathlib import Path

import pytest

from graphnet.sdk import CHANGES, CONTRACT
from tests.support import public_names

ROOT = Path(__file__).parents[2]
WHOLE = ("graphnet", "graphnet.sdk", "graphnet.testing", "graphnet.nn", "graphnet.errors")
USERS = [
    *(ROOT / "plugins").glob("*/src/**/*.py"),
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "graphnet" / "cli" / "plugin_template").glob("*.py.template"),
]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/*/README.md")]


def imported(text: str) -> set[tuple[str, str]]:
    """The module and the name of each import from graphnet in some Python."""
    return {
        (part.module, alias.name)
        for part in ast.walk(ast.parse(textwrap.dedent(text)))
        if isinstance(part, ast.ImportFrom) and (part.module or "").split(".")[0] == "graphnet"
        for alias in part.names
        if part.module
    }


def private(text: str) -> list[str]:
    """The imports of names that are not public."""
    rooms = public_names.rooms()
    return [
        f"{module}.{name}"
        for module, name in sorted(imported(text))
        if module not in WHOLE and name not in rooms.get(module, ())
    ]


def test_public_names_are_those_of_the_list() -> None:
    number, listed = public_names.written()
    present = public_names.names()
    gone, new = set(listed) - set(present), set(present) - set(listed)
    assert not gone | new, f"gone: {sorted(gone)}; new: {sorted(new)}. Run `make public`"
    assert number == CONTRACT, "CONTRACT has changed. Run `make public`"


def test_a_public_name_goes_only_with_a_new_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(public_names, "ROOT", tmp_path)
    monkeypatch.setattr(public_names, "LIST", tmp_path / "names.txt")
    old = f"contract {CONTRACT}\ngraphnet.sdk.Gone\n"
    public_names.LIST.write_text(old)
    assert public_names.main() == 1
    assert "graphnet.sdk.Gone" in capsys.readouterr().err
    assert public_names.LIST.read_text() == old
    monkeypatch.setattr(public_names, "CONTRACT", CONTRACT + 1)
    assert public_names.main() == 0
    assert public_names.written() == (CONTRACT + 1, public_names.names())


def test_names_that_the_page_calls_public_exist() -> None:
    rooms = public_names.rooms()
    assert len(rooms) > 5
    for room, names in rooms.items():
        module = importlib.import_module(room)
        assert names <= set(module.__all__), room


def test_plugins_and_examples_import_public_names_only() -> None:
    assert len(USERS) > 20
    used = {p.name: private(re.sub(r"\$\{\w+\}", "name", p.read_text())) for p in USERS}
    assert {name: found for name, found in used.items() if found} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_of_the_docs_imports_public_names_only(page: Path) -> None:
    for text in re.findall(r"^```python[^\n]*\n(.*?)^```", page.read_text(), flags=re.M | re.S):
        assert private(text) == []


def test_each_change_of_the_contract_is_on_the_page() -> None:
    page = public_names.PAGE.read_text().replace("`", "")
    for number, changes in CHANGES.items():
        for change in changes:
            assert f"| {number} | {change[0].upper() + change[1:]}. |" in page
    assert max(CHANGES) == CONTRACT

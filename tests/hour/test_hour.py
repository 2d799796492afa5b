"""What `make hour` needs of the docs and of the user's script, without the fresh environment."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

import graphnet as gn
from graphnet.sdk import KINDS
from tests.hour.__main__ import ADDED, WITH_THEM, examples

SCRIPT = Path(__file__).parent / "user_script.py"


def test_the_plugin_registers_something_of_each_kind() -> None:
    assert set(KINDS) - set(ADDED) == set()


def test_the_files_of_the_plugin_are_examples_in_the_docs() -> None:
    titles = {title for names in ADDED.values() for title in names.values() if title}
    assert {*titles, *WITH_THEM} - set(examples()) == set()


def test_the_users_script_uses_each_public_name_and_ignores_no_type() -> None:
    text = SCRIPT.read_text()
    used = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "gn"
    }
    assert set(gn.__all__) - used == set()
    assert "type: ignore" not in text


@pytest.mark.slow
def test_the_users_script_trains() -> None:
    first, second = runpy.run_path(str(SCRIPT))["main"]()
    assert second < first

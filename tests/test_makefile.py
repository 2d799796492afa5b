"""The Makefile does what its head says: each target is described, and has a recipe."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "Makefile").read_text().replace("\\\n", "")
INTERNAL = {"lint", "clean"}


def test_each_target_is_described_and_has_a_recipe() -> None:
    (stated,) = re.findall(r"^\.PHONY:(.*)$", TEXT, re.M)
    targets = set(stated.split())
    described = set(re.findall(r"^# make (\w+) ", TEXT, re.M))
    recipes = dict(re.findall(r"^(\w+):(.*(?:\n\t.*)*)", TEXT, re.M))
    assert described == targets - INTERNAL
    assert targets <= set(recipes)
    assert [name for name in targets if not recipes[name].strip()] == []

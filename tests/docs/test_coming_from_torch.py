"""The page for users of torch is true: its code prints what it shows, and its table means what it says."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import graphnet as gn
from graphnet import nn
from tests.docs.test_tour import pieces, read

PAGE = (Path(__file__).parents[2] / "docs" / "coming_from_torch.md").read_text()
ROWS = re.findall(r"^\| `([^|]+)` \| `([^|]+)` \|", PAGE, flags=re.M)


def test_code_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, parts = read(PAGE)
    assert len(parts) >= 5
    namespace: dict[str, object] = {}
    for part in parts:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(part.code, namespace)
        assert pieces(printed.getvalue()) == pieces(part.output)


def run(code: str, namespace: dict[str, Any]) -> Any:
    """Run statements, and return the value of the last one if it is an expression."""
    tree = ast.parse(code.strip())
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(code, namespace)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), "<row>", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "<row>", "eval"), namespace)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("row", ROWS, ids=[ours for _, ours in ROWS])
def test_both_sides_of_a_row_mean_the_same(
    row: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = []
    for code, lib in zip(row, (torch.nn, nn), strict=True):
        world: dict[str, Any] = {"torch": torch, "nn": nn, "gn": gn}
        torch.manual_seed(0)
        world["net"] = lib.Sequential(
            lib.Conv2d(3, 8, 3, padding=1),
            lib.BatchNorm2d(8),
            lib.ReLU(),
            lib.Conv2d(8, 3, 3, padding=1),
        )
        world["x"] = torch.rand(4, 3, 8, 8)
        world["net"](world["x"])  # the running statistics are not those of the start
        world["criterion"] = lib.MSELoss()
        results.append(run(code, world))
    expected, found = results
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected.detach())
    elif isinstance(expected, list | tuple | str | bool):
        assert found == expected


def test_the_table_has_its_rows() -> None:
    assert len(ROWS) >= 20

"""The other project called graphnet is noticed where it is installed, by a command and by the registry."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from graphnet.cli import run
from graphnet.errors import DistributionWarning
from graphnet.sdk import load_registry


def put(folder: Path, name: str, file: str) -> None:
    info = folder / f"{file}-1.8.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.8.0\n")


@pytest.mark.parametrize("name", ["graphnet", "GraphNeT"])
def test_other_project_called_graphnet_is_said_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, name, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(["layers"]) == 0  # this loads the registry too
    assert capsys.readouterr().err.count("graphnet 1.8.0 is installed, another project") == 1
    with pytest.warns(DistributionWarning, match="pip uninstall graphnet graphnet-framework"):
        load_registry()


def test_our_own_distributions_are_not_taken_for_the_other_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("graphnet-framework", "graphnet-cpu", "graphnet-acme", "acme-graphnet"):
        put(tmp_path, name, name.replace("-", "_"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_registry()

"""docs/standalone.md is true: its files are written, its commands and its code run, in this order."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

import graphnet as gn
from graphnet.cli import run
from graphnet.errors import SourceError
from graphnet.sdk import load_registry

PAGE = (Path(__file__).parents[2] / "docs" / "standalone.md").read_text()
BLOCKS = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', PAGE, re.M | re.S)


def test_the_page_about_standalone_folders_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {}
    ran = 0
    for language, title, text in BLOCKS:
        if title:
            Path(title).write_text(text)
        elif language == "python":
            exec(text, names)
            ran += 1
        elif language == "sh":
            assert run(shlex.split(text)[1:]) == 0
            ran += 1
            # The block below the command shows its output; the size depends on the versions in the files.
            shown = re.search(r"\d+ bytes", PAGE)
            assert shown is not None
            assert re.sub(r"\d+ bytes", shown[0], capsys.readouterr().out) in PAGE
    assert ran == 4
    pytest.importorskip("scipy")
    plugin = __import__("acme_hann")
    model = gn.Model(
        {"layers": ["acme/hann"]}, registry=load_registry(plugins=[plugin], entry_points=False)
    )
    with pytest.raises(SourceError) as caught:
        gn.export_standalone(model, "refused", (1, 3))
    assert f"\n{caught.value}\n" in PAGE
    for name in ("acme_hann", "small_net", "small_net.model"):
        sys.modules.pop(name, None)

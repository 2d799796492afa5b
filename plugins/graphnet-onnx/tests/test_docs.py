"""docs/onnx.md is true: its files are written, its commands and its code run, in this order."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from graphnet.cli import run

pytest.importorskip("onnxruntime")
PAGE = (Path(__file__).parents[3] / "docs" / "onnx.md").read_text()
BLOCKS = re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', PAGE, re.M | re.S)


def test_the_page_about_onnx_is_true(
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
        elif language == "sh" and text.startswith("graphnet "):
            assert run(shlex.split(text)[1:]) == 0
            ran += 1
            # The block below the command shows its output; the size depends on the versions in the file.
            assert re.sub(r"\d+ bytes", "3807 bytes", capsys.readouterr().out) in PAGE
    sys.modules.pop("acme_swish", None)
    assert ran == 6

"""The Python code of the README runs in this order, and prints what the README shows below it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "README.md").read_text()
PARTS = re.findall(
    r"^```python\n((?:(?!```).)*?)^```\n\n```text\n(.*?)^```", PAGE, flags=re.M | re.S
)


def test_python_code_prints_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask.array")
    monkeypatch.chdir(tmp_path)
    assert len(PARTS) >= 3  # what prints nothing is run in test_image_files.py
    names: dict[str, object] = {}
    for code, expected in PARTS:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == expected

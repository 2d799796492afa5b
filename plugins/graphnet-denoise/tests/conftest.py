"""A command that a test calls has the memory of a fresh process."""

import pytest
from graphnet_denoise.jobs import memory


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has run many tests, and may take more than a command's --memory allows by default."""
    monkeypatch.setattr(memory, "taken_bytes", lambda: 400 << 20)

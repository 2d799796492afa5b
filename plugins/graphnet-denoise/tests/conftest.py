"""Commands that a test calls have a fresh process's memory, whatever the tests before have left in this one."""

import pytest
from graphnet_denoise.jobs import memory


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 400 << 20  # a process that has run thousands of tests takes more than --memory allows by default
    monkeypatch.setattr(memory, "taken_bytes", lambda: taken)

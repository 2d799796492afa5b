"""Devices, hypothesis settings and the order of all tests."""

from __future__ import annotations

import getpass
import os
import random
import tempfile
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

if capability := os.environ.get("ATEN_CPU_CAPABILITY"):
    # Inductor's cache does not tell code for one kind of vector instructions from code for another.
    os.environ.setdefault(
        "TORCHINDUCTOR_CACHE_DIR",
        f"{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}_{capability}",
    )

settings.register_profile("default", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests run first, so that no process is left alone with one at the end.

    With GRAPHNET_SHUFFLE, a seed, the order of the files and of the tests in each is random.
    """
    if seed := os.environ.get("GRAPHNET_SHUFFLE"):
        draw = random.Random(seed)
        places = {path: draw.random() for path in dict.fromkeys(item.path for item in items)}
        draw.shuffle(items)
        items.sort(key=lambda item: places[item.path])
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


_DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were not collected."""
    if "cuda" not in _DEVICES:
        terminalreporter.write_line("There is no CUDA device: no test ran on one.")


_CHANGE_OUTPUT = [
    *("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "PYTEST_ADDOPTS"),
    *(
        "COLUMNS",
        "LINES",
        "FORCE_COLOR",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "PY_COLORS",
        "TTY_COMPATIBLE",
    ),
]


@pytest.fixture(scope="session", autouse=True)
def _same_output() -> Iterator[None]:
    """The programs that tests start print the same text on a CI machine as in a terminal."""
    with pytest.MonkeyPatch.context() as patch:
        for name in _CHANGE_OUTPUT:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(params=_DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device in turn."""
    return torch.device(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """torch's number of threads is afterwards what it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

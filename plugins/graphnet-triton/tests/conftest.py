"""The tests run on a GPU, or by Triton's interpreter; without either they are skipped."""

from __future__ import annotations

import pytest
import torch
from graphnet_triton import INTERPRETED

if not torch.cuda.is_available() and not INTERPRETED:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

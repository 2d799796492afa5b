"""Most tests run on a GPU, or by Triton's interpreter, and without either are skipped.

The kit's are in float64, which only the interpreter takes. Compiling needs neither.
"""

from __future__ import annotations

import pytest
import torch
from graphnet_triton import INTERPRETED

collect_ignore = [] if INTERPRETED else ["test_kit.py"]
if not torch.cuda.is_available() and not INTERPRETED:
    collect_ignore += ["test_operators.py", "test_updates.py"]


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

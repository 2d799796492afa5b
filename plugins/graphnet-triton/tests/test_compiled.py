"""Every program compiles for a GPU: Triton's interpreter takes some that its compiler refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import graphnet_triton.programs
import pytest
from triton import knobs

_HERE = Path(__file__).parent


def programs() -> set[str]:
    """The programs that are launched by themselves: no other one calls them."""
    (folder,) = graphnet_triton.programs.__path__
    text = "\n".join(file.read_text() for file in Path(folder).glob("*.py"))
    made = set(re.findall(r"^@triton\.jit\ndef (\w+)\(", text, re.MULTILINE))
    return made - set(re.findall(r"(?<!def )\b(\w+)\(", text))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_program_compiles_for_a_hopper_gpu(dtype: str, tmp_path: Path) -> None:
    """In a process of its own: whether programs are interpreted is decided where Triton is imported."""
    try:
        assert knobs.nvidia.ptxas.path
    except RuntimeError as error:
        pytest.skip(f"Triton has no ptxas, which makes machine code for NVIDIA's GPUs: {error}")
    given = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(_HERE / "compiling.py"), dtype]
    done = subprocess.run(command, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(done.stdout.split()) == programs()

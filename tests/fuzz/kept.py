"""Kept: inputs that reached new code when they were found, in tests/fuzz/kept; the tests run all of them.

`python -m tests.fuzz.kept` copies the smallest inputs that `make guided` has found, from build/fuzz.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "kept"
FOUND = Path(__file__).parents[2] / "build" / "fuzz"
_MOST_BYTES = 1_500  # of an input
_MOST = 200  # inputs for a target


def kept(target: str) -> list[bytes]:
    """The inputs that are kept for a target, by its name."""
    path = FOLDER / f"{target}.txt"
    lines = path.read_text(encoding="ascii").split() if path.is_file() else []
    return [base64.b64decode(line) for line in lines]


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for folder in sorted(path for path in FOUND.iterdir() if path.is_dir()):
        files = sorted((folder / "corpus").iterdir(), key=lambda path: (path.stat().st_size, path))
        new = [path.read_bytes() for path in files if path.stat().st_size <= _MOST_BYTES]
        chosen = new[:: max(1, len(new) // _MOST)][:_MOST]
        faults = [path.read_bytes() for path in sorted((folder / "found").iterdir())]
        lines = sorted({base64.b64encode(one).decode() for one in (*chosen, *faults)})
        (FOLDER / f"{folder.name}.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Kept: inputs that reached new code when they were found, in tests/fuzz/kept; the tests run all of them.

`python -m tests.fuzz.kept` copies the smallest inputs that `make guided` has found, from build/fuzz. Inputs
that were a fault are added to those that are kept, and stay.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "kept"
FOUND = Path(__file__).parents[2] / "build" / "fuzz"
_MOST_BYTES = 1_500  # of an input
_MOST = 200  # inputs for a target


def kept(target: str) -> list[bytes]:
    """The inputs that are kept for a target, by its name."""
    return [base64.b64decode(line) for line in (*_lines(target), *_lines(_faults(target)))]


def _faults(target: str) -> str:
    """The name of the file with the inputs that were faults."""
    return f"{target}-faults"


def _lines(name: str) -> list[str]:
    path = FOLDER / f"{name}.txt"
    return path.read_text(encoding="ascii").split() if path.is_file() else []


def _write(name: str, lines: set[str]) -> None:
    (FOLDER / f"{name}.txt").write_text("\n".join(sorted(lines)) + "\n", encoding="ascii")


def _encoded(inputs: Iterable[bytes]) -> set[str]:
    return {base64.b64encode(one).decode() for one in inputs}


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for folder in sorted(path for path in FOUND.iterdir() if path.is_dir()):
        files = sorted((folder / "corpus").iterdir(), key=lambda path: (path.stat().st_size, path))
        new = [path.read_bytes() for path in files if path.stat().st_size <= _MOST_BYTES]
        chosen = new[:: max(1, len(new) // _MOST)][:_MOST]
        _write(folder.name, _encoded(chosen))
        if found := _encoded(path.read_bytes() for path in (folder / "found").iterdir()):
            faults = _faults(folder.name)
            _write(faults, found.union(_lines(faults)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

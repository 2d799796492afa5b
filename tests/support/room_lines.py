"""Count the lines of Python in each room of graphnet, and in the plugin of kernels in C++.

    python -m tests.support.room_lines --checkout DIR

A line counts where it holds something, a comment or a docstring too; empty lines do not. Files that belong
to no room are named at the end, and make the exit status 1.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from pathlib import Path

from tests.support.rooms import BUILTIN, CPU, FACE, ROOMS, room_of


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the lines of Python in each room.")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2])
    checkout = parser.parse_args().checkout.resolve()
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    longest: dict[str, tuple[int, str]] = defaultdict(lambda: (0, ""))
    homeless = []
    folders = checkout / "graphnet", checkout / "plugins" / CPU / "src"
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        name = path.relative_to(checkout).as_posix()
        room = room_of(path, checkout)
        count = sum(1 for line in path.read_text().splitlines() if line.strip())
        if room is None:
            homeless.append(f"{name} ({count} lines)")
            continue
        files[room] += 1
        lines[room] += count
        longest[room] = max(longest[room], (count, name))
    print(f"{'room':<12} {'files':>5} {'lines':>6}  longest file")
    for room in (FACE, *ROOMS, BUILTIN, CPU):
        count, name = longest[room]
        print(f"{room:<12} {files[room]:>5} {lines[room]:>6}  {name} {count}")
    print(f"{'all':<12} {files.total():>5} {lines.total():>6}")
    if homeless:
        print("in no room:", ", ".join(homeless))
    return 1 if homeless else 0


if __name__ == "__main__":
    sys.exit(main())

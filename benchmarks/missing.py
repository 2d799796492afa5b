"""What the distributions in a folder need and no place has: `python -m benchmarks.missing FOLDER [NAME...]`.

NAMEs are asked for too. What is there, but older than asked for, is said and goes through.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distributions, version

from packaging.requirements import Requirement


def needed(folder: str) -> list[Requirement]:
    """What the distributions in the folder require on this machine, without extras."""
    texts = [text for found in distributions(path=[folder]) for text in found.requires or ()]
    every = [Requirement(text) for text in texts]
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]


def main(folder: str, *names: str) -> int:
    """Say what is missing; returns the exit status."""
    missing = set()
    for one in (*needed(folder), *map(Requirement, names)):
        try:
            found = version(one.name)
        except PackageNotFoundError:
            missing.add(one.name)
            continue
        if not one.specifier.contains(found, prereleases=True):
            print(f"{one.name} is {found} here, and {one} is asked for")
    if missing:
        print(f"These packages are missing, add their wheels: {', '.join(sorted(missing))}.")
    return 2 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

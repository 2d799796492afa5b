"""The list of public names, tests/docs/public_names.txt: `make public` writes it anew.

A name that goes breaks somebody's code. So a list that lacks a name is written only if CONTRACT is higher
than in the list before. Where no version has the name yet, its line may be deleted by hand.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import click

import graphnet.errors
import graphnet.sdk
from docs.site import commands, reference
from graphnet.cli import graphnet as command_line
from graphnet.cli.commands import OWN
from graphnet.sdk import CONTRACT, KINDS

ROOT = Path(__file__).parents[2]
LIST = ROOT / "tests" / "docs" / "public_names.txt"
PAGE = ROOT / "docs" / "public.md"


def rooms() -> dict[str, set[str]]:
    """Room -> its public names, of those rooms that the page lists with their names."""
    found = {}
    for room, names in re.findall(r"^\| `(graphnet\.\w+)` \| (.*?) \|$", PAGE.read_text(), re.M):
        listed = re.findall(r"`([\w*]+)`", names)
        found[room] = set(importlib.import_module(room).__all__ if listed[0] == "*" else listed)
    return found


def names() -> list[str]:
    """Every public name, in order: of modules, members of the SDK's classes, hooks, commands and options."""
    found = {f"hook {kind.hook}" for kind in KINDS.values()}
    for module in ("graphnet", "graphnet.sdk", "graphnet.testing", "graphnet.nn"):
        found |= {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    for room, public in rooms().items():
        found |= {f"{room}.{name}" for name in public}
    for name, cls in reference.public_classes(graphnet.sdk).items():
        found |= {f"graphnet.sdk.{name}.{member}" for member in reference.members(cls)}
    found |= {
        f"graphnet.errors.{name}"
        for name, value in vars(graphnet.errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    for path, command, _ in commands.walk(command_line, "graphnet", None):
        if path == "graphnet" or path.split()[1] in OWN:
            found.add(path)
            options = (one for one in command.params if isinstance(one, click.Option))
            found |= {f"{path} {option.opts[-1]}" for option in options}
    return sorted(found)


def written() -> tuple[int, list[str]]:
    """The number of the contract for which the list was written, and the list."""
    first, *lines = LIST.read_text().splitlines()
    return int(first.removeprefix("contract ")), lines


def main() -> int:
    """Write the list, unless a name is gone and the number of the contract is the same."""
    present = names()
    if LIST.exists():
        number, before = written()
        gone = sorted(set(before) - set(present))
        if gone and number == CONTRACT:
            print(f"these public names are gone: {', '.join(gone)}. Raise CONTRACT and say in CHANGES "
                  f"(graphnet/sdk/contract.py) what to do. If no version has them, delete their lines in "
                  f"{LIST.relative_to(ROOT)}.", file=sys.stderr)  # fmt: skip
            return 1
    LIST.write_text("\n".join([f"contract {CONTRACT}", *present]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

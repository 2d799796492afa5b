"""A fresh environment: a venv with torch and other packages of this one, and nothing of this repository."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("setuptools", "mypy")  # what builds wheels and checks types


class Fresh:
    """A venv in a folder, and a folder `work` beside it in which commands run.

    The distributions that graphnet depends on are links to those of the running Python: torch is large.
    They are distributions like installed ones, so pip finds that they satisfy what wheels depend on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        link_distributions([*stated, *TOOLS], folder / "linked")
        # Before pip's own: the venv may come with an older setuptools.
        (site / "linked.pth").write_text(
            f"import sys; sys.path.insert(0, {str(folder / 'linked')!r})\n"
        )

    def run(self, *command: str, status: int = 0, **variables: str) -> str:
        """Run a command of the venv in the folder `work`, print it, and return what it printed.

        Raises RuntimeError if it ends with another exit status.
        """
        print("  $", " ".join(command), flush=True)
        hidden = ("PYTHON", "GRAPHNET", "VIRTUAL_ENV")
        kept = {name: v for name, v in os.environ.items() if not name.startswith(hidden)}
        env = {
            **kept,
            "PATH": f"{self.folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "GRAPHNET_CACHE": str(self.folder / "cache"),
            **variables,
        }
        done = subprocess.run(
            command, cwd=self.work, env=env, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != status:
            raise RuntimeError(
                f"{' '.join(command)}: expected exit status {status}, found {done.returncode}\n{done.stdout}"
            )
        return done.stdout


def link_distributions(requirements: Iterable[str], into: Path) -> None:
    """Link the files of installed distributions, and of all that they depend on, into a folder."""
    into.mkdir()
    for found in closure(requirements):
        if found.files is None:
            raise RuntimeError(f"{found.name} does not say which files it has")
        for top in {file.parts[0] for file in found.files}:
            source = Path(str(found.locate_file(top)))
            if top not in ("..", "__pycache__") and source.exists() and not (into / top).exists():
                (into / top).symlink_to(source)


def closure(requirements: Iterable[str]) -> Iterator[importlib.metadata.Distribution]:
    """The installed distributions that requirements name, and those which they require, once each."""
    waiting, seen = [(requirement, "") for requirement in requirements], set[str]()
    while waiting:
        requirement, extras = waiting.pop()
        wanted = re.findall(r"""extra == ['"]([\w-]+)['"]""", requirement)
        if wanted and not set(wanted) & set(extras.split(",")):
            continue
        ((name, its_extras),) = re.findall(r"^([\w.-]+)(?:\[([\w,-]+)\])?", requirement)
        key = f"{name}[{its_extras}]"
        if key in seen:
            continue
        seen.add(key)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python; `pip check` says if one is missing
        waiting += [(one, its_extras) for one in found.requires or ()]
        yield found

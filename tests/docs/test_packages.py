"""The distributions of this repository: what their wheels hold, and that an editable install is found."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted((ROOT / "plugins").iterdir())]
BUILD = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
pytestmark = pytest.mark.slow


def copied(project: Path, folder: Path) -> Path:
    """Copy what a clone of a project has, so that a build leaves nothing in this one."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "."], cwd=project, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    other = ("plugins/", "tests/", "docs/", "benchmarks/", "examples/") if project == ROOT else ()
    for name in filter(None, names):
        if not name.startswith(other) and (project / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project / name, folder / name)
    return folder


def built(what: str, folder: Path, into: Path) -> Path:
    into.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, what, str(into)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


needs_clone = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone")


@needs_clone
@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_wheel_has_all_files_of_its_package_and_says_what_it_is(
    project: Path, tmp_path: Path
) -> None:
    folder = copied(project, tmp_path / "source")
    wheel = zipfile.ZipFile(built("build_wheel", folder, tmp_path / "dist"))
    names = set(wheel.namelist())
    source = folder if project == ROOT else folder / "src"
    (package,) = (path.parent for path in source.glob("*graphnet*/__init__.py"))
    files = {str(p.relative_to(source)) for p in package.rglob("*") if p.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert f"{package.name}/py.typed" in names
    (info,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    stated = email.message_from_bytes(wheel.read(info))
    meta = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert stated["Name"] == meta["name"]
    assert stated["Summary"]
    assert "Typing :: Typed" in stated.get_all("Classifier", [])
    if project.name != "graphnet-example":  # its author chooses a licence
        assert stated["License-Expression"] == "Apache-2.0"
        licence = wheel.read(info.replace("METADATA", "licenses/LICENSE"))
        assert licence == (ROOT / "LICENSE").read_bytes()


@needs_clone
def test_an_editable_install_is_found_from_the_parent_of_a_clone(tmp_path: Path) -> None:
    clone = copied(ROOT, tmp_path / "work" / "graphnet")
    wheel = built("build_editable", clone, tmp_path / "dist")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = f"import site; site.addsitedir({str(site)!r}); import graphnet; print(graphnet.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=clone.parent, capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == clone / "graphnet" / "__init__.py"

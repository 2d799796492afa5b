"""Files and folders are written whole or not at all, and what killed processes leave is deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graphnet.errors import WriteError
from graphnet.system import atomic_folder, atomic_write, sweep

# Writes half of something under a temporary name, says so, and waits to be killed.
HALF = """
import sys, time
from pathlib import Path
from graphnet.system import {function}
with {function}(Path(sys.argv[1])) as temporary:
    if temporary.is_dir():
        temporary = temporary / "part"
    temporary.write_bytes(b"half")
    print("half", flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("function", ["atomic_write", "atomic_folder"])
def test_sweep_leaves_what_is_being_written_and_deletes_it_once_the_process_is_killed(
    tmp_path: Path, function: str
) -> None:
    target = tmp_path / "x"
    code = HALF.format(function=function)
    process = subprocess.Popen([sys.executable, "-c", code, target], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    sweep(tmp_path)
    assert len(names(tmp_path)) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(names(tmp_path)) == 1
    sweep(tmp_path)
    assert names(tmp_path) == set()


def test_a_folder_that_was_being_replaced_gets_its_name_back(tmp_path: Path) -> None:
    """The process was killed after the old folder was renamed, and before the new one was."""
    old, new = tmp_path / ".x.0123abcd.old", tmp_path / ".x.0123abcd.tmp"
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir()
        (folder / "a").write_text(text)
    sweep(tmp_path)
    assert names(tmp_path) == {"x"}
    assert (tmp_path / "x" / "a").read_text() == "old"


def test_a_replaced_folder_is_deleted(tmp_path: Path) -> None:
    (tmp_path / ".x.0123abcd.old").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("new")
    sweep(tmp_path)
    assert names(tmp_path) == {"x"}
    assert (tmp_path / "x" / "a").read_text() == "new"


def test_sweep_of_a_folder_that_does_not_exist_does_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    assert names(tmp_path) == set()


def test_a_folder_replaces_another_one(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for text in ("first", "second"):
        with atomic_folder(target) as folder:
            (folder / text).write_text(text)
    assert names(target) == {"second"}
    with pytest.raises(RuntimeError), atomic_folder(target) as folder:
        raise RuntimeError
    assert names(target) == {"second"}
    assert names(tmp_path) == {"x"}


def test_older_files_are_kept_under_other_names(tmp_path: Path) -> None:
    target, older = tmp_path / "a", [tmp_path / "a-1", tmp_path / "a-2"]
    for text in "12345":
        with atomic_write(target, older=older) as temporary:
            temporary.write_text(text)
    assert [path.read_text() for path in (target, *older)] == ["5", "4", "3"]
    assert names(tmp_path) == {"a", "a-1", "a-2"}


def test_a_written_file_has_the_permissions_of_the_user(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_write_error_names_the_path_and_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(
            WriteError, match=r"none/a: cannot be written \(No such file.*existing folder"
        ),
        atomic_write(tmp_path / "none" / "a"),
    ):
        pass

"""Commands of plugins: listed with their help, imported when called, named where two want one name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphnet.errors import PluginError
from graphnet.sdk import Command

TEXT = """
import graphnet as gn

@gn.hookimpl
def graphnet_commands(register):
    register("{name}", gn.Command("{help}", "{module}_cli:hello"))
"""
CLI = """
import click

@click.command()
def hello():
    click.echo("hello from {module}")
"""


def write(folder: Path, module: str, *, name: str, summary: str) -> None:
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[graphnet.plugins]\n{module} = {module}\n")
    (folder / f"{module}.py").write_text(TEXT.format(name=name, help=summary, module=module))
    (folder / f"{module}_cli.py").write_text(CLI.format(module=module))


def run(*calls: list[str], path: Path, **environment: str) -> list[tuple[str, str]]:
    """What each call of the command line prints, on stdout and stderr; all in one new process."""
    code = (
        "import contextlib, io, json, sys\n"
        "from graphnet.cli import run\n"
        "for call in json.loads(sys.argv[1]):\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        run(call)\n"
        "    print(json.dumps([out.getvalue(), err.getvalue()]))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(path), "GRAPHNET_CACHE": str(path / "cache")}
    command = [sys.executable, "-c", code, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, env={**env, **environment})
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_commands_are_listed_called_and_switched_off(tmp_path: Path) -> None:
    write(tmp_path, "acme_first", name="greet", summary="Say hello.")
    write(tmp_path, "acme_second", name="greet", summary="Say hello too.")
    write(tmp_path, "acme_third", name="train", summary="Train in another way.")
    calls = [["--help"], ["greet"], ["train", "--help"], ["plugins"]]
    listed, greeted, trained, plugins = run(*calls, path=tmp_path)
    assert "Commands of acme_first:\n  greet  Say hello.\n" in listed[0]
    assert "None (" not in listed[0]
    assert greeted == (
        "hello from acme_first\n",
        "warning: acme_second 1.0 is broken: command name 'greet' is registered by acme_first 1.0 and by "
        "acme_second 1.0; one of them has to change it\n",
    )
    assert "Train the model that CONFIG names" in trained[0]
    both = "command name 'train' is registered by graphnet-framework 0.1.0 and by acme_third 1.0"
    assert both in trained[1]
    assert "acme_first  loaded  (acme_first 1.0)\n    commands: greet\n" in plugins[0]
    assert f"acme_third  broken  (acme_third 1.0)\n    {both}" in plugins[0]

    (off,) = run(["greet"], path=tmp_path, GRAPHNET_DISABLE_PLUGINS="Acme-First")
    assert off == ("hello from acme_second\n", "")


@pytest.mark.slow
def test_help_is_printed_from_the_cache_until_a_plugin_changes(tmp_path: Path) -> None:
    """With a table in the cache neither torch nor a plugin is imported."""
    write(tmp_path, "acme_kept", name="greet", summary="Say hello.")
    code = (
        "import sys\nfrom graphnet.cli import run\nrun(['--help'])\n"
        "print(sorted({'torch', 'acme_kept'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "GRAPHNET_CACHE": str(tmp_path / "cache")}

    def help_text() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout

    assert help_text().endswith("['acme_kept', 'torch']\n")
    again = help_text()
    assert "greet  Say hello." in again
    assert again.endswith("[]\n")
    text = TEXT.format(name="salute", help="Say it otherwise.", module="acme_kept")
    (tmp_path / "acme_kept.py").write_text(text)
    assert "salute  Say it otherwise." in help_text()


@pytest.mark.parametrize(
    ("help_line", "target", "message"),
    [
        ("", "acme:hello", "the help of a command must be one line, found ''"),
        ("One.\nTwo.", "acme:hello", "must be one line"),
        ("One.", "acme.hello", "must be 'module:attribute', found 'acme.hello'"),
    ],
)
def test_a_command_says_what_is_wrong_with_it(help_line: str, target: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Command(help_line, target)

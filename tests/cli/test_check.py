"""graphnet check: what it takes, prints and exits with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from graphnet.cli import run
from graphnet.cli.check import resolve

PLUGIN = '''
import graphnet as gn

class Double(gn.Layer):
    """2 x [bold]in brackets[/], elementwise."""

    def forward(self, x):
        return 2 * x

    def backward(self, grad_y):
        return {factor} * grad_y

@gn.hookimpl
def graphnet_layers(register):
    register("acme/double", Double)
'''


METRIC = """
import graphnet as gn

class Nothing(gn.Metric):
    higher_is_better = True

    def measure(self, prediction, target):
        return 0 * prediction

@gn.hookimpl
def graphnet_metrics(register):
    register("nothing/at_all", Nothing)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_right_layer_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "relu"]) == 0
    output = capsys.readouterr()
    (line,) = output.out.splitlines()
    assert re.fullmatch(
        r"relu: passed, \d+ of \d+ checks ran; conforms; differentiates under reference and eager"
        r"(; equal on the device)?",
        line,
    )
    assert output.err == ""  # no progress bar where there is no terminal


def test_verbose_prints_every_check_and_what_was_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-v", "leaky_relu"]) == 0
    output = capsys.readouterr().out
    assert "gradient_numerical" in output
    assert "field negative_slope: tried 0.01, 0.25, 0.5" in output
    assert "level conforms: yes" in output
    assert "skipped, the layer is not random: random_replay" in output


def test_module_without_a_hook_is_told_what_to_write(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, _, _ = PLUGIN.replace("{factor}", "2").partition("@gn.hookimpl")
    (module / "acme_nohook.py").write_text(text)
    assert run(["check", "acme_nohook"]) == 2
    error = capsys.readouterr().err
    assert "module 'acme_nohook' implements no hook" in error
    written = error.partition("Write in it:\n\n")[2]
    assert '    register("acme/double", Double)' in written
    (module / "acme_hooked.py").write_text(f"import graphnet\n{text}\n{written}")
    assert run(["check", "acme_hooked"]) == 0


def test_json_has_a_row_for_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--json", "sigmoid", "aten/sigmoid"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["layer"], first["ok"]) == ("sigmoid", True)
    assert second["layer"] == "aten/sigmoid"
    rows = {row["check"]: row for row in second["checks"]}
    assert rows["kernel_equals_reference"] == {
        "check": "kernel_equals_reference",
        "status": "passed",
        "message": "",
    }
    assert rows["json_schema"]["status"] == "skipped"


def test_wrong_layer_of_a_module_exits_with_1(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (module / "wrong_plugin.py").write_text(PLUGIN.replace("{factor}", "-2"))
    assert run(["check", "wrong_plugin"]) == 1
    output = capsys.readouterr().out
    assert "acme/double" in output
    assert "a sign" in output
    assert output.startswith("acme/double: failed, ")
    assert "  gradient_numerical: Each gradient agrees with central differences" in output
    assert "passed" not in output  # what passes is not listed


def test_right_layer_of_a_module_exits_with_0(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (module / "right_plugin.py").write_text(PLUGIN.replace("{factor}", "2"))
    assert run(["check", "--json", "right_plugin"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["layer"] == "acme/double"


def test_distribution_or_module_stands_for_all_its_layers_and_kernels() -> None:
    _, entries = resolve("Graphnet_Framework")
    names = {entry.name for entry in entries}
    assert {"relu", "mse", "aten/relu"} <= names
    _, entries = resolve("graphnet.builtin.layers.merge")
    expected = {"add", "broadcast_add", "subtract", "multiply", "concat"}
    assert {entry.name for entry in entries} == expected


@pytest.mark.parametrize("name", ["relux", "acme/nothing", "no-such-distribution"])
def test_unknown_name_exits_with_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", name]) == 2
    error = capsys.readouterr().err
    assert (
        f"{name!r} is no layer, loss, kernel or optimizer, and no distribution or module" in error
    )
    if name == "relux":
        assert "Did you mean 'relu'" in error


def test_module_of_a_broken_package_is_called_broken_not_unknown(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = module / "broken_package"
    package.mkdir()
    (package / "__init__.py").write_text("import nothing_of_this_name")
    (package / "layers.py").write_text("")
    assert run(["check", "broken_package.layers"]) == 2
    error = capsys.readouterr().err
    assert "'broken_package.layers' cannot be imported: ModuleNotFoundError" in error
    assert "nothing_of_this_name" in error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit"),
        ("x = 1", "implements no hook"),
        (METRIC, "registers no layer, loss, kernel or optimizer"),
    ],
)
def test_broken_module_exits_with_2(
    text: str, says: str, module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"broken_{abs(hash(text))}"
    (module / f"{name}.py").write_text(text)
    assert run(["check", name]) == 2
    assert says in capsys.readouterr().err

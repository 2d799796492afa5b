"""A file's ending chooses the writer; the command and the function say what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import graphnet as gn
from graphnet.cli import run
from graphnet.errors import DescriptionError, InputError, LayerError
from graphnet.sdk import Register, load_registry


class Text(gn.Writer):
    """Writes the names of the nodes."""

    separator: str = ","

    def write(self, model: Any, path: Path, shapes: Sequence[tuple[int, ...]]) -> gn.Written:
        text = self.separator.join(model.graph(*shapes).calls)
        path.write_text(text)
        return gn.Written(path, {"x": "1 x 3"}, {}, len(text), "names")


class Fails(gn.Writer):
    """Writes nothing."""

    def write(self, model: Any, path: Path, shapes: Sequence[tuple[int, ...]]) -> gn.Written:
        raise ZeroDivisionError("no reason")


class Acme:
    @gn.hookimpl
    def graphnet_writers(self, register: Register) -> None:
        register(".names", Text)
        register(".fails", Fails)


MODEL = gn.Model(
    {"layers": ["relu", "tanh"]}, registry=load_registry(plugins=[Acme()], entry_points=False)
)


def test_ending_chooses_the_writer_whose_fields_are_given(tmp_path: Path) -> None:
    written = gn.export(MODEL, tmp_path / "net.NAMES", (1, 3), separator="+")
    assert (tmp_path / "net.NAMES").read_text() == "relu_1+tanh_1"
    assert str(written).splitlines() == [
        "input x: 1 x 3",
        f"wrote {tmp_path / 'net.NAMES'}: 13 bytes, names, random weights",
    ]
    (entry,) = (one for one in MODEL.registry.writers.values() if one.value is Text)
    assert entry.name == ".names"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.name", "net.name: nothing writes a name that ends in .name. Did you mean '.names'?"),
        ("net", "nothing writes a name without an ending. Known: .fails, .names. For a folder"),
        ("net.onnx", "nothing writes a name that ends in .onnx. Run: pip install graphnet-onnx."),
    ],
)
def test_ending_that_nobody_writes_is_an_error_with_the_endings(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        gn.export(MODEL, name, (1, 3))
    assert message in str(caught.value)


def test_ending_that_nobody_reads_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("")
    with pytest.raises(DescriptionError, match=r"nothing reads .* Run: pip install graphnet-onnx"):
        gn.load(tmp_path / "net.onnx", registry=MODEL.registry)


def test_field_that_the_writer_does_not_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="separators: .*'separator'"):
        gn.export(MODEL, tmp_path / "net.names", (1, 3), separators="+")
    with pytest.raises(DescriptionError, match="separator: expected string, found 3"):
        gn.export(MODEL, tmp_path / "net.names", (1, 3), separator=3)


def test_exception_of_a_writer_names_the_file_the_ending_and_the_distribution(
    tmp_path: Path,
) -> None:
    message = r"net.fails: the writer of .fails \(Acme local\) failed: ZeroDivisionError: no reason"
    with pytest.raises(LayerError, match=message):
        gn.export(MODEL, tmp_path / "net.fails", (1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "net.abc"], "net.abc: nothing writes a name that ends in .abc"),
        (["-o", "net", "--standalone", "--set", "kernels"], "expected --set FIELD=VALUE"),
        (["-o", "net", "--standalone", "--set", "kernel=aten"], "kernel: "),
        (["-o", "my-net", "--standalone"], "my-net: expected a folder whose name"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text("layers: [relu]")
    assert run(["export", "net.yaml", "--input", "1x3", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line

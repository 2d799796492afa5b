"""Readers: the ending of a file says who reads it; what goes wrong names the file and the plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import graphnet as gn
from graphnet.cli import run
from graphnet.description import read_model
from graphnet.errors import DescriptionError
from graphnet.model import Model
from graphnet.sdk import ModelFile, Register, Registry, hookimpl, load_registry
from graphnet.training.config import read_job

TOML = """
name = "small"
layers = [{conv2d = {out_channels = 4, kernel_size = 3}}, "relu"]
"""


def reading(reader: Any) -> Registry:
    class Reader:
        @hookimpl
        def graphnet_readers(self, register: Register) -> None:
            register(".acme", reader)

    return load_registry(plugins=[Reader()], entry_points=False)


def test_toml_and_json_are_read_as_yaml_is(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    json = (
        '{"name": "small", "layers": [{"conv2d": {"out_channels": 4, "kernel_size": 3}}, "relu"]}'
    )
    (tmp_path / "a.json").write_text(json)
    (tmp_path / "a.yaml").write_text(
        "name: small\nlayers: [{conv2d: {out_channels: 4, kernel_size: 3}}, relu]"
    )
    data = [
        gn.load(tmp_path / f"a.{end}").description.to_data() for end in ("toml", "json", "yaml")
    ]
    assert data[0] == data[1] == data[2]


def test_a_reader_of_a_plugin_gives_weights_too(tmp_path: Path) -> None:
    (tmp_path / "a.acme").write_text("")
    weights = {"linear_1.weight": torch.eye(2), "linear_1.bias": torch.tensor([1.0, 2.0])}
    layers = [{"linear": {"in_features": 2, "out_features": 2}}]
    registry = reading(lambda path: ModelFile({"layers": layers}, weights))
    model = Model.load(tmp_path / "a.acme", registry=registry)
    assert model.predict(torch.tensor([[3.0, 4.0]])).tolist() == [[4.0, 6.0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "a.qqq",
            "a.qqq: nothing reads a name that ends in .qqq. Known: .acme, .json, .safetensors, ",
        ),
        ("a.tml", "nothing reads a name that ends in .tml. Did you mean '.toml'"),
        ("model", "model: nothing reads a name without an ending. Known: "),
        ("gone.toml", "gone.toml: cannot be read: No such file or directory"),
        ("bad.toml", r"bad.toml: not TOML: .* \(at line 1, column "),
        ("wrong.toml", "wrong.toml: layerz: unknown field"),
        ("a.acme", "the reader of .acme .Reader local. failed: KeyError: 'layers'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = 3 4")
    (tmp_path / "wrong.toml").write_text("layers = ['relu']\nlayerz = 3")
    with pytest.raises(DescriptionError, match=message):
        read_model(tmp_path / name, reading(lambda path: {}["layers"]), others=(".safetensors",))


def test_commands_and_training_files_use_the_readers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.toml").write_text(TOML)
    assert run(["explain", str(tmp_path / "net.toml"), "--input", "1x3x8x8"]) == 0
    assert "conv2d_1" in capsys.readouterr().out
    assert run(["explain", str(tmp_path / "net.abc"), "--input", "1x3x8x8"]) == 2
    assert "nothing reads a name that ends in .abc" in capsys.readouterr().err
    (tmp_path / "pairs.npz").write_bytes(b"")
    (tmp_path / "train.yaml").write_text(
        "{model: net.abc, data: {train: pairs.npz}, loss: mse, optimizer: sgd, epochs: 1, batch_size: 1}"
    )
    with pytest.raises(DescriptionError, match="net.abc: nothing reads a name that ends in .abc"):
        read_job(tmp_path / "train.yaml", registry=load_registry(entry_points=False))

"""Checkpoint files: tensors that were read are independent of the file, and each tensor has one name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import graphnet as gn
from graphnet.description import parse
from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint, read_checkpoint, write_checkpoint
from graphnet.sdk import Register, load_registry

CONV = {
    "input": {"channels": 3},
    "layers": [{"conv2d": {"out_channels": 64, "kernel_size": 3, "padding": 1}}],
}


def save(path: Path, weights: dict[str, Tensor]) -> None:
    write_checkpoint(path, Checkpoint(parse(CONV), weights))


@pytest.mark.parametrize("change", ["shortened", "overwritten", "deleted"])
def test_a_loaded_model_does_not_depend_on_its_file(change: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    weight = torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    save(path, {"conv2d_1.weight": weight, "conv2d_1.bias": torch.zeros(64)})
    model, checkpoint = gn.load(path), read_checkpoint(path)
    if change == "shortened":  # a mapped file would end this process at the next read
        os.truncate(path, 100)
    elif change == "overwritten":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        path.unlink()
    x = torch.ones(1, 3, 5, 5)
    expected = torch.conv2d(x, weight, padding=1)
    torch.testing.assert_close(model.predict(x), expected)
    assert torch.equal(checkpoint.weights["conv2d_1.weight"], weight)


def test_two_names_for_one_tensor_are_refused_and_the_older_file_stays(tmp_path: Path) -> None:
    path, shared = tmp_path / "m.safetensors", torch.arange(4.0)
    path.write_bytes(b"older")
    for second in (shared, shared[1:], shared.view(2, 2)):
        with pytest.raises(CheckpointError, match=r"'a' and 'b' are views of one tensor.*share"):
            save(path, {"a": shared, "b": second})
    assert path.read_bytes() == b"older"
    save(path, {"a": shared, "b": shared.clone(), "c": torch.zeros(0), "d": torch.zeros(0)})
    assert set(read_checkpoint(path).weights) == {"a", "b", "c", "d"}


def test_every_shortened_file_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(path, {"a": torch.zeros(3)})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            read_checkpoint(path)


class Double(gn.Layer):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Local:
    @gn.hookimpl
    def graphnet_layers(self, register: Register) -> None:
        register("local/double", Double)


def test_a_layer_of_an_object_cannot_be_installed_and_the_error_says_what_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.safetensors"
    registry = load_registry(plugins=[Local()])
    model = gn.Model({"layers": ["local/double"]}, registry=registry, weights={})
    model.save(path)
    with pytest.raises(
        CheckpointError, match=r"'local/double' was registered by Local .*registry="
    ) as caught:
        gn.load(path)
    assert "pip install" not in str(caught.value)
    x = torch.ones(2, 3)
    assert torch.equal(gn.Model.load(path, registry=registry).predict(x), 2 * x)

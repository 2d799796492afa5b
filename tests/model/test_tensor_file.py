"""A file of tensors shows any damage, and nothing that is no model is read far."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from graphnet.description import parse
from graphnet.errors import CheckpointError
from graphnet.model import Checkpoint, read_checkpoint, tensor_file, write_checkpoint

MODEL = Checkpoint(
    parse({"name": "digest", "layers": [{"linear": {"out_features": 2}}]}),
    {"linear_1.weight": torch.randn(2, 3), "linear_1.bias": torch.zeros(2)},
    training={"step": 7},
    training_state={"linear_1.weight:momentum": torch.ones(2, 3)},
    about={"license": "none"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "m.safetensors", MODEL)
    return tmp_path / "m.safetensors"


def test_a_checkpoint_reads_back_equal(path: Path) -> None:
    read = read_checkpoint(path)
    assert read.description == MODEL.description
    assert (read.training, read.about, read.versions) == (MODEL.training, MODEL.about, {})
    for mine, theirs in (
        (MODEL.weights, read.weights),
        (MODEL.training_state, read.training_state),
    ):
        assert set(mine) == set(theirs)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    bits = range(8 * len(whole))
    for bit in random.Random(0).sample(bits, 2000):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"m\.safetensors: "):
            read_checkpoint(path)


def test_the_damaged_tensor_is_named(path: Path) -> None:
    data = bytearray(path.read_bytes())
    weight = data.index(MODEL.weights["linear_1.weight"].numpy().tobytes())
    data[weight + 5] ^= 64
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"damaged: the tensor 'model/linear_1\.weight' is not as .*Copy the"
    ):
        read_checkpoint(path)


def with_header(path: Path, change: Any) -> None:
    """Write a file whose header's text, as plain data, is changed, with right digests."""
    file = tensor_file.read_tensors(path)
    assert file.data is not None
    data = dict(file.data)
    change(data)
    tensor_file.write_tensors(path, file.tensors, data)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["format"], 3, "expected checkpoint format 2 or older, found 3"),
        (["format"], "2", r"format: Input should be a valid integer"),
        (["description"], [], r"description: Input should be a valid dictionary"),
        (["description", "layers"], 7, "the description in its header is not one of a model"),
        (["versions"], {"layers": {"a": {}}}, r"versions\.layers\.a\.version: Field required"),
        (["versions"], {"plugins": {"a": 1}}, r"versions\.plugins\.a: Input should be a valid str"),
        (["about"], {"license": 1}, r"about\.license: Input should be a valid string"),
        (["training"], 5, r"training: Input should be a valid dictionary"),
        (["more"], 5, r"more: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_field_of_the_header_is_named(
    path: Path, where: list[str], value: object, message: str
) -> None:
    def change(data: dict[str, Any]) -> None:
        *outer, last = where
        for key in outer:
            data = data[key]
        data[last] = value

    with_header(path, change)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_file_of_the_first_format_has_no_digests_and_is_read(path: Path) -> None:
    header = {"format": 1, "description": MODEL.description.to_data(), "versions": {}}
    tensors = {f"model/{name}": tensor for name, tensor in MODEL.weights.items()}
    save_file(tensors, path, {"graphnet": json.dumps(header | {"training": {"step": 7}})})
    read = read_checkpoint(path)
    assert torch.equal(read.weights["linear_1.weight"], MODEL.weights["linear_1.weight"])
    save_file(tensors, path, {"graphnet": json.dumps(header | {"format": 2})})
    with pytest.raises(CheckpointError, match="damaged: its header is not as it was written"):
        read_checkpoint(path)


def test_a_file_of_another_program_is_no_model(path: Path) -> None:
    for metadata in (None, {"made_by": "somebody"}):
        save_file({"a": torch.ones(2)}, path, metadata)
        with pytest.raises(CheckpointError, match="not a model saved by graphnet"):
            read_checkpoint(path)


def test_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    for path in (Path("/dev/zero"), tmp_path):
        with pytest.raises(CheckpointError, match="it is a folder or a device"):
            read_checkpoint(path)


@pytest.mark.parametrize("start", [b"", (99).to_bytes(8, "little") + b'{"a":{"dtype":"U8",'])
def test_of_a_large_file_that_is_no_model_little_is_read(
    tmp_path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 100_000, "its header cannot be read"),
        (b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0]}}', "a: data_offsets"),
        (b'{"a":{"dtype":"U8","shape":[-2],"data_offsets":[0,2]}}', r"a: shape: 0: .*greater"),
        (b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "it has 61 bytes, .* 63"),
        (b'{"__metadata__":{"graphnet":1}}', "__metadata__: graphnet: .*valid string"),
    ],
)
def test_a_wrong_header_is_told(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
